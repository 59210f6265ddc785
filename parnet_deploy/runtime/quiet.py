"""Keep what a C library prints out of standard output, which belongs to ``--json``."""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_LOCK = threading.RLock()
_LIBC = ctypes.CDLL(None)


@contextmanager
def stdout_to_stderr() -> Iterator[None]:
    """Within the block, what this process writes to file descriptor 1 goes to 2.

    It holds for every thread, so use it for loading only, never in a call. Blocks of several
    threads follow one another. A process without standard output needs and gets nothing.
    """
    with _stdout_at(lambda: os.dup(2)):
        yield


@contextmanager
def stdout_dropped() -> Iterator[None]:
    """The same, but what is written is lost: for what says nothing that anybody needs."""
    with _stdout_at(lambda: os.open(os.devnull, os.O_WRONLY)):
        yield


@contextmanager
def _stdout_at(open_target: Callable[[], int]) -> Iterator[None]:
    with _LOCK:
        _flush()
        try:
            kept = os.dup(1)
        except OSError:
            yield
            return
        try:
            try:
                target = open_target()
            except OSError:  # no standard error either
                target = os.open(os.devnull, os.O_WRONLY)
            os.dup2(target, 1)
            os.close(target)
            yield
        finally:
            try:
                _flush()
            finally:
                os.dup2(kept, 1)
                os.close(kept)


def _flush() -> None:
    """What the C library and Python still hold back was printed before now."""
    if sys.stdout is not None:
        sys.stdout.flush()
    _LIBC.fflush(None)
