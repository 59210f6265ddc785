"""Another process that holds the lock of a deployment, until its standard input ends."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from parnet_deploy.deployment import Deployment

ROOT = Path(__file__).parents[2]


@contextmanager
def other_process_holds(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process is writing the deployment."""
    command = [sys.executable, "-m", "tests.storage.lock_holder", str(path)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process


if __name__ == "__main__":
    with Deployment.edit(sys.argv[1]):
        sys.stdout.write("held\n")
        sys.stdout.flush()
        sys.stdin.read()
