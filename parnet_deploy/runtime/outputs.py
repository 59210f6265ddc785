"""Device memory for logits that a caller keeps for a while: taken, read, let go, used again."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from ..errors import BackendError
from .device import Buffer


class Lease:
    """Keeps a buffer, and whatever else a result depends on, for as long as somebody reads it."""

    def __init__(self, buffer: Buffer, *needs: object) -> None:
        self.buffer, self.needs = buffer, needs


class OutputPool:
    """Buffers of one size, reused in the stream in which they were used before.

    A buffer comes back when its last reader is garbage. Work of its stream may still read it then;
    so only that stream gets it again, behind that work. Thread-safe.

    Owns: all buffers, leased ones too, until ``close``.
    """

    def __init__(self, allocate: Callable[[], Buffer]) -> None:
        self._allocate = allocate
        self._idle: dict[int, deque[Buffer]] = {}
        self._all: list[Buffer] = []

    def take(self, stream: int, *needs: object) -> Lease:
        """A buffer for work in this stream.

        Raises:
            OutOfMemoryError: The device has not so much left.
        """
        idle = self._idle.setdefault(stream, deque())
        try:
            buffer = idle.pop()
        except IndexError:
            buffer = self._allocate()
            self._all.append(buffer)
        lease = Lease(buffer, *needs)
        # Garbage is collected anywhere, in the middle of a capture too: no driver is called here.
        weakref.finalize(lease, idle.append, buffer).atexit = False
        return lease

    def close(self) -> None:
        """Free everything. What is leased must not be read any more. Idempotent."""
        while self._all:
            with suppress(BackendError):
                self._all.pop().close()
        self._idle.clear()
