"""How a deployment is kept on disk: manifest, signature, artifacts, journal, lock, transaction.

``parnet_deploy.deployment`` is the public face; others take no more than ``files.hash_file`` here.
"""
