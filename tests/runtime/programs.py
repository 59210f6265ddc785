"""Programs for the tests of what happens to whole processes: forks, ends, signals."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np

_PRELUDE = """
import atexit, gc, os, signal, sys, threading, time
import numpy as np
from parnet_deploy import Runtime
from parnet_deploy.errors import BackendError

signal.alarm({limit})
path, backend, slots = sys.argv[1], sys.argv[2], 2
known = np.load(path + "/../known.npz")
x, expected = known["x"], known["logits"]


def right(logits):
    return np.allclose(logits, expected, rtol=1e-5, atol=1e-6)


def open_runtime(**more):
    return Runtime.open(path, backend=backend, slots=slots, **more)


def refused(call):
    try:
        call()
    except BackendError as error:
        return str(error)
    raise AssertionError("it was not refused")


def fork(child):
    "Exit code of a child that runs this and ends as any program does."
    pid = os.fork()
    if pid == 0:
        signal.alarm({limit})
        child()
        sys.exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
"""

LIMIT_S = 100
"""A hang guard: the process, and each child of it, is killed after so long."""


def run_program(text: str, path: Path, backend: str) -> subprocess.CompletedProcess[str]:
    """Run a program in a process of its own. ``known.npz`` stands beside the deployment."""
    # Python 3.12 and later warn of any fork where there are threads.
    options = ["-X", "faulthandler", "-W", "error", "-W", "ignore::DeprecationWarning"]
    return subprocess.run(
        [sys.executable, *options, "-c", _PRELUDE.format(limit=LIMIT_S) + text, path, backend],
        capture_output=True,
        text=True,
        timeout=2 * LIMIT_S,
        check=False,
    )


def write_known(path: Path, x: np.ndarray, logits: np.ndarray) -> None:
    """Beside the deployment: what the programs ask, and the answer."""
    np.savez(path.parent / "known.npz", x=x, logits=logits)
