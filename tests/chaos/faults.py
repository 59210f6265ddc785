"""Faults at the n-th change that a process makes on the disk, without a word of it in the package.

Python's own audit events and ``os.fsync`` are the points: files opened to be written, renames,
removals, new and removed directories, below one directory. Reading changes nothing, so a process
that dies while it reads leaves what it left at the change before.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
PATH_EVENTS = ("os.rename", "os.remove", "os.mkdir", "os.rmdir")


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What happens at the ``at``-th change below ``root``; 0: the changes are only counted.

    ``code`` is the number of an ``OSError``; None: the process is killed. ``file_bytes`` and
    ``memory_bytes`` are limits on the size of files and on memory beyond what the process has,
    from its start on.
    """

    root: str
    at: int = 0
    code: int | None = None
    file_bytes: int | None = None
    memory_bytes: int | None = None

    def arm(self, on_change: Callable[[], None]) -> None:
        """From now on. ``on_change`` is called at each change; there is no way back."""
        _limit(resource.RLIMIT_FSIZE, self.file_bytes)
        if self.memory_bytes is not None:
            pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
            _limit(resource.RLIMIT_AS, pages * resource.getpagesize() + self.memory_bytes)
        changes = _Changes(self, on_change)
        sys.addaudithook(changes.on_event)
        os.fsync = changes.on_fsync  # type: ignore[assignment]


class _Changes:
    def __init__(self, fault: Fault, on_change: Callable[[], None]) -> None:
        self._fault, self._on_change, self._count = fault, on_change, 0

    def on_event(self, event: str, args: Any) -> None:
        if event == "open":
            path, _, flags = args
            if isinstance(flags, int) and flags & WRITING:
                self._change(path)
        elif event in PATH_EVENTS:
            where = args[1] if event in ("os.remove", "os.rmdir") else -1
            self._change(args[0], where)

    def on_fsync(self, handle: int) -> None:
        """Counts, and leaves it at that: to sync matters for a power cut only."""
        self._change(f"/proc/self/fd/{handle}")

    def _change(self, path: object, directory: int = -1) -> None:
        text = os.fsdecode(path) if isinstance(path, str | bytes | os.PathLike) else ""
        if text.startswith("/proc/self/fd/"):
            text = os.readlink(text)
        elif directory >= 0:  # a name inside an open directory
            text = os.path.join(os.readlink(f"/proc/self/fd/{directory}"), text)
        if not os.path.abspath(text).startswith(self._fault.root + os.sep):
            return
        self._on_change()
        self._count += 1
        if self._count != self._fault.at:
            return
        if self._fault.code is None:
            os.kill(os.getpid(), signal.SIGKILL)
        else:
            raise OSError(self._fault.code, os.strerror(self._fault.code), text)


def _limit(which: int, value: int | None) -> None:
    if value is not None:
        resource.setrlimit(which, (value, value))
