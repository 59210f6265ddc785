"""A server in a process of its own: ``python -m tests.serve.load.serve_it '<options as JSON>'``.

Writes its ports to standard output as JSON when it is ready, and stops when its input ends.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from typing import Any

from parnet_deploy.serve.model.options import ModelOptions
from parnet_deploy.serve.options import ServerOptions
from parnet_deploy.serve.page.page import load_page
from parnet_deploy.serve.rest.answer import Answer, json_answer
from parnet_deploy.serve.rest.app import Page
from parnet_deploy.serve.security.limits import Limits
from parnet_deploy.serve.server import Server
from parnet_deploy.serve.service import InferenceService
from parnet_deploy.serve.service_options import ServiceOptions


async def serve(given: dict[str, Any]) -> None:
    """Serve until standard input ends."""
    models = [ModelOptions(path=path, threads=1) for path in given["deployments"]]
    service = InferenceService(models, ServiceOptions(**given.get("service", {})))
    limits = Limits(**given.get("limits", {}))
    options = ServerOptions(port=0, grpc_port=0, limits=limits, drain_s=5.0)
    page = load_page()
    headers = tuple((k.encode(), v.encode()) for k, v in page.headers.items())
    pages = {
        "/": Page(make=lambda: Answer(headers=headers, body=page.body), public=True),
        "/card": Page(make=lambda: json_answer(service.describe())),
    }
    async with Server(service, options, pages=pages, metrics=service.metrics.render) as server:
        print(json.dumps({"port": server.port, "grpc_port": server.grpc_port}), flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    try:
        import uvloop
    except ImportError:
        asyncio.run(serve(json.loads(sys.argv[1])))
    else:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(json.loads(sys.argv[1])))
