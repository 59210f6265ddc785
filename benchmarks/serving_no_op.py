"""Our server with an engine that computes nothing: ``serving_no_op.py DEPLOYMENT PORT GRPC_PORT``.

Everything of ``parnet-deploy serve`` but the network: what a request costs beyond inference.
"""

from __future__ import annotations

import sys

import numpy as np
from numpy.typing import NDArray

from parnet_deploy.serve.server.grpc_threads import read_in_poller

read_in_poller()  # before gRPC is imported, as the command does

from parnet_deploy.serve.model.options import ModelOptions  # noqa: E402
from parnet_deploy.serve.model.served_model import ServedModel  # noqa: E402
from parnet_deploy.serve.server.deployments import DeploymentServer  # noqa: E402
from parnet_deploy.serve.server.options import ServerOptions  # noqa: E402
from parnet_deploy.serve.server.process import serve_until_stopped  # noqa: E402

LOGITS = np.zeros((1, 1000), np.float32)


def answer(model: ServedModel, images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Stands for ``ServedModel.run``."""
    return LOGITS


def main() -> None:
    """Serve until SIGTERM."""
    path, port, grpc_port = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    ServedModel.run = answer
    options = ServerOptions(port=port, grpc_port=grpc_port)
    serve_until_stopped(
        lambda: DeploymentServer([ModelOptions(path=path)], options), on_ready=lambda server: None
    )


if __name__ == "__main__":
    main()
