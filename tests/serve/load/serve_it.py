"""A server in a process of its own: ``python -m tests.serve.load.serve_it '<options as JSON>'``.

``parnet-deploy serve``, but with all limits open to the test. Writes its ports to standard output
as JSON when it is ready; SIGTERM stops it.
"""

from __future__ import annotations

import json
import logging
import sys

from parnet_deploy.serve.model.options import ModelOptions
from parnet_deploy.serve.security.limits import Limits
from parnet_deploy.serve.server.deployments import DeploymentServer
from parnet_deploy.serve.server.options import ServerOptions
from parnet_deploy.serve.server.process import serve_until_stopped
from parnet_deploy.serve.server.server import Server
from parnet_deploy.serve.service.options import ServiceOptions

given = json.loads(sys.argv[1])


def make_server() -> DeploymentServer:
    """What is served, and how."""
    models = [ModelOptions(path=path, threads=1) for path in given["deployments"]]
    limits = Limits(**given["limits"])
    options = ServerOptions(port=0, grpc_port=0, limits=limits, drain_s=10.0)
    return DeploymentServer(models, options, ServiceOptions(**given["service"]))


def show(server: Server) -> None:
    """Say where it listens."""
    print(json.dumps({"port": server.port, "grpc_port": server.grpc_port}), flush=True)


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    sys.exit(not serve_until_stopped(make_server, on_ready=show))
