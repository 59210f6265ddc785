"""Device memory for logits that a caller keeps for a while: taken, read, let go, used again."""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack, closing

from .device import Buffer, Event
from .lifetime import refusal

KEPT = 64
"""Buffers beyond which idle ones of other streams are freed rather than kept."""

_AMBIGUOUS = (0, 1, 2)
"""Handles of default streams, which name other streams in other threads and contexts."""

Part = tuple[Buffer, Event]


class Lease:
    """Keeps a buffer, and whatever else a result depends on, for as long as somebody reads it.

    ``event`` is for the point at which the content is there.
    """

    def __init__(self, part: Part, *needs: object) -> None:
        self.buffer, self.event = part
        self.needs = needs


class OutputPool:
    """Buffers of one size, reused in the stream in which they were used before.

    A buffer comes back when its last reader is garbage. Work of its stream may still read it then;
    so only that stream gets it again, behind that work. What is not given again is freed once it
    has been written; to free memory the driver waits for the device besides. Thread-safe.

    Owns: all buffers and events, leased ones too, until ``close``.
    """

    def __init__(self, allocate: Callable[[], Buffer], create_event: Callable[[], Event]) -> None:
        self._allocate, self._create_event = allocate, create_event
        self._idle: dict[int, deque[Part]] = {}
        self._spent: deque[Part] = deque()
        self._all: set[Part] = set()
        self._lock = threading.Lock()
        self._closed = False

    def take(self, stream: int, *needs: object) -> Lease:
        """A buffer for work in this stream.

        Raises:
            OutOfMemoryError: The device has not so much left.
            BackendError: The pool is closed.
        """
        with self._lock:
            if not self._closed:
                return self._lease(stream, needs)
        raise refusal("outputs: the runtime is closed. Open it again.")

    def close(self) -> None:
        """Free everything. What is leased must not be read any more. Idempotent."""
        with self._lock:
            self._closed = True
            self._free(deque(self._all))
            self._idle.clear()

    def _lease(self, stream: int, needs: tuple[object, ...]) -> Lease:
        shared = stream in _AMBIGUOUS
        back = self._spent if shared else self._idle.setdefault(stream, deque())
        if len(self._all) >= KEPT:
            for other, idle in list(self._idle.items()):
                if other != stream:
                    self._free(idle)
        self._free(self._spent)
        try:
            part = self._new() if shared else back.pop()
        except IndexError:
            part = self._new()
        lease = Lease(part, *needs)
        # Garbage is collected anywhere, in the middle of a capture too: no driver is called here.
        weakref.finalize(lease, back.append, part).atexit = False
        return lease

    def _new(self) -> Part:
        with ExitStack() as undo:  # the device may be lost between the two
            buffer = undo.enter_context(closing(self._allocate()))
            part = (buffer, self._create_event())
            undo.pop_all()
        self._all.add(part)
        return part

    def _free(self, idle: deque[Part]) -> None:
        with ExitStack() as parts:  # goes on whatever one of them raises
            while idle:
                part = idle.popleft()
                self._all.discard(part)
                for resource in part:
                    parts.callback(resource.close)
                parts.callback(part[1].synchronize)  # it is written until then
