"""How a deployment is kept on disk: manifest, artifacts, journal, lock, transaction.

``parnet_deploy.deployment`` is the public face; nothing else imports from here.
"""
