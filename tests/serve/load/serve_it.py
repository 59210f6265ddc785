"""A server in a process of its own: ``python -m tests.serve.load.serve_it '<options as JSON>'``.

``parnet-deploy serve``, but with all limits open to the test. Writes its ports to standard output
as JSON when it is ready; SIGTERM stops it.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Mapping
from typing import Any

from parnet_deploy.serve.model.options import ModelOptions
from parnet_deploy.serve.security.limits import Limits
from parnet_deploy.serve.server.deployments import DeploymentServer
from parnet_deploy.serve.server.options import ServerOptions
from parnet_deploy.serve.server.process import serve_until_stopped
from parnet_deploy.serve.server.server import Server
from parnet_deploy.serve.service.options import ServiceOptions

Given = Mapping[str, Any]


def make_server(given: Given) -> DeploymentServer:
    """What is served, and how."""
    more = given["model"]
    models = [ModelOptions(path=path, threads=1, **more) for path in given["deployments"]]
    limits = Limits(**given["limits"])
    options = ServerOptions(port=0, grpc_port=0, limits=limits, drain_s=10.0)
    return DeploymentServer(models, options, ServiceOptions(**given["service"]))


def show(server: Server) -> None:
    """Say where it listens."""
    print(json.dumps({"port": server.port, "grpc_port": server.grpc_port}), flush=True)


def serve(given: Given, on_ready: Callable[[], None] = lambda: None) -> bool:
    """Serve until it is told to stop; SIGHUP reloads. Whether it had time to drain."""
    made: list[DeploymentServer] = []

    def make() -> DeploymentServer:
        made.append(make_server(given))
        return made[0]

    def ready(server: Server) -> None:
        on_ready()
        show(server)

    async def reload(asked: bool) -> list[str]:
        return await made[0].reload(again=asked)

    logging.basicConfig(level=logging.WARNING)
    return serve_until_stopped(make, on_ready=ready, reload=reload)


if __name__ == "__main__":
    sys.exit(not serve(json.loads(sys.argv[1])))
