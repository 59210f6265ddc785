"""The real Triton Inference Server, as the wheel nvidia-pytriton bundles it, on loopback ports.

It has its python backend and no other, so an exported repository of kind "python" is served whole.
``make oracle`` installs it, and the clients, into environments of their own.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
ENVIRONMENTS = Path(os.environ.get("PARNET_ORACLE", REPOSITORY / ".venv/oracle"))
NAMES = ("tritonserver", "tritonclient", "kserve")

START_S = 120.0
STOP_S = 30.0
POLL_S = 0.05


@dataclass(frozen=True, kw_only=True)
class Served:
    """A server that answers on loopback. ``log`` is what it says."""

    name: str
    model: str
    rest: int
    rpc: int
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.rest}"


def missing_oracle() -> str | None:
    """What is missing to run the conformance suite; None if nothing."""
    absent = [name for name in NAMES if not python_of(name).exists()]
    return f"the environments {', '.join(absent)} (make oracle)" if absent else None


def python_of(name: str) -> Path:
    """The interpreter of one environment."""
    return ENVIRONMENTS / name / "bin/python"


def free_ports(count: int) -> tuple[int, ...]:
    """Loopback ports that are free now, all different."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return tuple(each.getsockname()[1] for each in sockets)


@contextmanager
def serve_triton(
    repository: Path, model: str, folder: Path, options: Sequence[str] = ()
) -> Iterator[Served]:
    """Start the real Triton on a model repository, and stop it in the end.

    Args:
        repository: What ``export-triton`` wrote.
        model: The model to wait for.
        folder: Where the server's files and its log go; made if it is missing.
        options: More options of tritonserver.
    """
    home = _assemble(folder / "tritonserver")
    rest, rpc, metrics = free_ports(3)
    command = [
        str(home / "bin/tritonserver"),
        f"--model-repository={repository}",
        f"--backend-directory={home / 'backends'}",
        *("--http-address=127.0.0.1", f"--http-port={rest}"),
        *("--grpc-address=127.0.0.1", f"--grpc-port={rpc}"),
        *("--metrics-address=127.0.0.1", f"--metrics-port={metrics}"),
        *options,
    ]
    environment = _environment()
    with running("triton", command, environment, folder / "triton.log") as (process, log):
        wait_until_ready(process, log, rest)
        yield Served(name="triton", model=model, rest=rest, rpc=rpc, process=process, log=log)


@contextmanager
def running(
    name: str, command: Sequence[str], environment: dict[str, str], log: Path
) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """A server's process in a group of its own; nothing of it outlives the block."""
    with log.open("wb") as sink:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
    try:
        yield process, log
    finally:
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise AssertionError(f"{name} did not stop:\n{tail(log)}") from None


def wait_until_ready(process: subprocess.Popen[bytes], log: Path, port: int) -> None:
    """Ask until the server says that it is ready."""
    for _ in range(round(START_S / POLL_S)):
        try:
            url = f"http://127.0.0.1:{port}/v2/health/ready"
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            pass
        try:
            process.wait(POLL_S)
        except subprocess.TimeoutExpired:
            continue
        break
    raise AssertionError(f"the server is not ready:\n{tail(log)}")


def tail(log: Path, lines: int = 40) -> str:
    """The end of a log."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])


def packages(name: str) -> Path:
    """Where an environment's packages are."""
    prefix = str(ENVIRONMENTS / name)
    return Path(sysconfig.get_path("purelib", vars={"base": prefix, "platbase": prefix}))


def _assemble(home: Path) -> Path:
    """The server with the stub for this Python beside its python backend."""
    bundled = packages("tritonserver") / "pytriton/tritonserver"
    for part in ("bin", "backends", "caches"):
        shutil.copytree(bundled / part, home / part)
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = bundled / "python_backend_stubs" / version / "triton_python_backend_stub"
    shutil.copy(stub, home / "backends/python")
    return home


def _environment() -> dict[str, str]:
    """The server finds its libraries, and the stub the environment of the first Python in PATH."""
    site = packages("tritonserver")
    libraries = [
        str(site / "nvidia_pytriton.libs"),
        sysconfig.get_config_var("LIBDIR"),
    ]
    return {
        **os.environ,
        "LD_LIBRARY_PATH": ":".join(libraries),
        "PATH": f"{python_of('tritonserver').parent}:{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
    }
