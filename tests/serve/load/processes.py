"""Starts the server and its clients, each in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.serve.load.known import Known

ROOT = Path(__file__).parents[3]


@dataclass(frozen=True)
class Running:
    """A server that listens on loopback."""

    pid: int
    port: int
    grpc_port: int
    host: str = "127.0.0.1"
    errors: Path | None = None

    def complaints(self) -> str:
        """What it has written to standard error: tracebacks, warnings."""
        return "" if self.errors is None else self.errors.read_text(encoding="utf-8")


def environment() -> dict[str, str]:
    """One thread that does not spin, for each process: they share the cores."""
    quiet = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "PYTHONFAULTHANDLER": "1"}
    return {**os.environ, **quiet, "PYTHONPATH": str(ROOT)}


@contextmanager
def serving(
    deployments: Sequence[Path],
    directory: Path,
    *,
    service: Mapping[str, Any] | None = None,
    limits: Mapping[str, Any] | None = None,
    model: Mapping[str, Any] | None = None,
    module: str = "tests.serve.load.serve_it",
) -> Iterator[Running]:
    """A ready server, run as ``module``; on SIGTERM it must drain and stop, with exit code 0."""
    given = {
        "deployments": [str(path) for path in deployments],
        "service": dict(service or {}),
        "limits": dict(limits or {}),
        "model": dict(model or {}),
    }
    errors = directory / "server.log"
    with errors.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", module, json.dumps(given)],
            cwd=ROOT,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=log,
        )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line, f"the server did not start: {errors.read_text()}"
        ports = json.loads(line)
        yield Running(process.pid, ports["port"], ports["grpc_port"], errors=errors)
        alive = process.poll() is None
        process.terminate()
        process.wait(timeout=60)
        assert alive, f"the server died: {errors.read_text()}"
        assert process.returncode == 0, errors.read_text()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def drive(
    running: Running, known: Known, directory: Path, *loads: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Let clients loose on the server, a process for each load; their reports (``drive.Load``)."""
    path = directory / "known.npz"
    known.save(path)
    processes = [start_clients(running, path, load) for load in loads]
    return [report_of(process) for process in processes]


def start_clients(running: Running, known: Path, load: Mapping[str, Any]) -> subprocess.Popen[str]:
    """Clients in a process of their own; see ``drive.Load``."""
    where = {"host": running.host, "port": running.port, "grpc_port": running.grpc_port}
    return start("tests.serve.load.drive", {**where, "known": str(known), **load})


def start(module: str, given: Mapping[str, Any]) -> subprocess.Popen[str]:
    """A process that is told what to do, and writes a report as JSON."""
    return subprocess.Popen(
        [sys.executable, "-m", module, json.dumps(given)],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def report_of(process: subprocess.Popen[str]) -> dict[str, Any]:
    """Wait for a process to end well; what it has written."""
    out, errors = process.communicate()
    assert process.returncode == 0, errors
    report: dict[str, Any] = json.loads(out)
    return report
