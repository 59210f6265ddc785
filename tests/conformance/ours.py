"""``parnet-deploy serve`` as a process, on loopback ports."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.conformance.oracle import REPOSITORY, Served, free_ports, running, wait_until_ready


@contextmanager
def serve_ours(deployment: Path, folder: Path, options: Sequence[str] = ()) -> Iterator[Served]:
    """Start our server on a deployment, and stop it in the end."""
    rest, rpc = free_ports(2)
    command = [
        *("-m", "parnet_deploy", "serve", str(deployment)),
        *("--port", str(rest), "--grpc-port", str(rpc)),
        *options,
    ]
    with serve_by(command, "ours", deployment.name, (rest, rpc), folder) as served:
        yield served


@contextmanager
def serve_by(
    command: Sequence[str], name: str, model: str, ports: tuple[int, int], folder: Path
) -> Iterator[Served]:
    """Run a Python program of ours that serves on these ports, and stop it in the end."""
    rest, rpc = ports
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    log = folder / f"{name}.log"
    with running(name, [sys.executable, *command], environment, log) as (process, log):
        wait_until_ready(process, log, rest)
        yield Served(name=name, model=model, rest=rest, rpc=rpc, process=process, log=log)
