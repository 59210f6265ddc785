"""What a child process of the builder does first; see ``child`` for its parent's side."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from typing import TextIO

_PR_SET_PDEATHSIG = 1


def private_stdout() -> TextIO:
    """Standard output for events alone: what libraries print there goes to standard error."""
    sys.stdout.flush()
    stream = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return stream


def end_with_parent() -> None:
    """Ask the kernel to kill this process when its parent dies, so that no build is left alone."""
    parent = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:  # it died before the kernel knew
        os.kill(os.getpid(), signal.SIGKILL)
