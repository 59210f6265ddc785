"""Hold the lock of a deployment until standard input ends; run as a module with the directory."""

import sys

from parnet_deploy.deployment import Deployment

if __name__ == "__main__":
    with Deployment.edit(sys.argv[1]):
        sys.stdout.write("held\n")
        sys.stdout.flush()
        sys.stdin.read()
