"""Threads that make calls for others, in memory of their own, and say how long they are at it.

Whoever asked only waits, and may stop waiting at any time: from then on nothing of his is touched.
"""

from __future__ import annotations

import ctypes
import math
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from queue import SimpleQueue

from .host import HostBuffer
from .slot import Shape

Work = Callable[[int, int, Shape], None]
"""Reads an image batch at the first address, writes its logits at the second."""


@dataclass(eq=False, kw_only=True)
class Call:
    """One call. ``done`` is held until it is.

    ``over``: whoever asked waits no longer. ``since``: when its turn came. ``finished``: its logits
    are where they were wanted.
    """

    work: Work
    image: int
    image_bytes: int
    logits: int
    logits_bytes: int
    shape: Shape
    over: bool = False
    since: float | None = None
    finished: bool = False
    error: BaseException | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)
    done: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.done.acquire()

    def begin(self, memory: int) -> float | None:
        """Take the image over; when that was. None: nobody waits any more."""
        with self.lock:
            if self.over:
                return None
            ctypes.memmove(memory, self.image, self.image_bytes)
            self.since = time.monotonic()
            return self.since

    def finish(self, result: int) -> None:
        """Hand the logits over, if somebody still waits for them."""
        with self.lock:
            if not self.over:
                ctypes.memmove(self.logits, result, self.logits_bytes)
                self.finished = True

    def leave(self) -> None:
        """Nobody waits any more: the memory is the caller's again."""
        with self.lock:
            self.over = True


class Crew:
    """So many threads, fed by one queue.

    Args:
        count: Threads.
        image_bytes: Memory of each for images.
        logits_bytes: Memory of each for logits.

    Owns: threads and memory. The threads end at ``close``, or when the crew is garbage.
    """

    def __init__(self, count: int, image_bytes: int, logits_bytes: int) -> None:
        self._shared = shared = _Shared(count)
        for index in range(count):
            memory, result = HostBuffer(image_bytes), HostBuffer(logits_bytes)
            threading.Thread(  # it knows what is shared only, or the crew would never be garbage
                target=_serve,
                args=(shared, index, memory, result),
                name=f"parnet-watched-{index}",
                daemon=True,  # one that hangs must not keep the process from ending
            ).start()
        weakref.finalize(self, _end, shared).atexit = False

    @property
    def latest_s(self) -> float:
        """When the call was begun that was begun last; infinite while a thread waits for work."""
        return max(self._shared.since)

    def running_s(self) -> list[float]:
        """For how long each call that is running has been."""
        now = time.monotonic()
        return [now - since for since in list(self._shared.since) if abs(since) < math.inf]

    def put(self, call: Call) -> None:
        """Let a thread make the call, behind those that wait."""
        self._shared.inbox.put(call)

    def close(self, limit_s: float, then: Callable[[], None]) -> int:
        """End the threads; what waits is not begun, and what runs may take so long in all.

        Args:
            limit_s: For each call, from its beginning.
            then: Called once no thread is left: before this returns, or in the last that ends.

        Returns: Threads that have not ended.
        """
        shared = self._shared
        _end(shared)
        with shared.ending:
            while shared.alive and (left_s := self.latest_s + limit_s - time.monotonic()) > 0:
                shared.ending.wait(min(left_s, limit_s))
            left = shared.alive
            if left:
                shared.last = then
        if not left:
            then()
        return left


class _Shared:
    """What the threads of a crew work on. ``since``: when each one's call was begun."""

    def __init__(self, count: int) -> None:
        self.inbox: SimpleQueue[Call | None] = SimpleQueue()
        self.since = [math.inf] * count
        self.ending = threading.Condition()
        self.alive = count
        self.closed = False
        self.last: Callable[[], None] | None = None


def _end(shared: _Shared) -> None:
    if not shared.closed:
        shared.closed = True
        for _ in shared.since:
            shared.inbox.put(None)


def _serve(shared: _Shared, index: int, memory: HostBuffer, result: HostBuffer) -> None:
    """The life of a thread."""
    while (call := shared.inbox.get()) is not None:
        begun_s = None if shared.closed else call.begin(memory.address)
        if begun_s is not None:
            shared.since[index] = begun_s
            try:
                call.work(memory.address, result.address, call.shape)
                call.finish(result.address)
            except BaseException as error:
                call.error = error
            shared.since[index] = math.inf
        call.done.release()
        del call  # keep nothing alive while idle
    with shared.ending:
        shared.since[index] = -math.inf
        shared.alive -= 1
        last = None if shared.alive else shared.last
        shared.ending.notify_all()
    if last is not None:
        last()
