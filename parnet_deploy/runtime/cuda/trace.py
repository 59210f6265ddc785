"""When the operations of a CUDA device ran, measured by the device."""

from __future__ import annotations

import threading
import time
from collections import deque
from contextlib import suppress
from typing import Any, NamedTuple

from cuda.bindings import driver

from ...errors import DeviceLostError
from ..device import TimelineEntry
from .context import CudaContext
from .stream import CudaStream

TIMELINE_LENGTH = 4096
"""How many operations are kept; the oldest go first."""

_TIMED = int(driver.CUevent_flags.CU_EVENT_DEFAULT)
_TRIES = 5
_ANCHOR_MS = 4000.0  # up to here the 32-bit milliseconds of the driver resolve half a microsecond


class _Pending(NamedTuple):
    op: str
    name: str
    stream: str
    start: Any
    end: Any


class Tracer:
    """Brackets operations by timing events and reads them when they are done. Thread-safe.

    Times are those of the host clock (``time.perf_counter``) in microseconds: an event is recorded
    at open and the clock read before and after, so devices of one process, and the host, share a
    time axis to some microseconds. Durations come from the device alone.

    Owns: its events, which it uses again. ``close`` destroys them.
    """

    def __init__(self, context: CudaContext) -> None:
        self._context = context
        self._lock = threading.Lock()
        self._pool: list[Any] = []
        self._pending: deque[_Pending] = deque()
        self._entries: deque[TimelineEntry] = deque(maxlen=TIMELINE_LENGTH)
        self._events: list[Any] = []
        try:
            self._anchor, self._anchor_us = self._set_anchor()
        except BaseException:
            self.close()
            raise

    def bracket(self, stream: CudaStream, op: str, name: str) -> _Bracket:
        """A ``with`` around what is enqueued in the stream as one operation."""
        return _Bracket(self, stream, op, name)

    def take(self) -> Any:
        """An event that nobody uses."""
        with suppress(IndexError):
            return self._pool.pop()
        event = self._context.call(driver.cuEventCreate, _TIMED)
        self._events.append(event)
        return event

    def give_back(self, event: Any) -> None:
        """Let the event be used again."""
        self._pool.append(event)

    def add(self, pending: _Pending) -> None:
        """Remember an operation that was enqueued; reads finished ones if there are many."""
        self._pending.append(pending)
        if len(self._pending) > TIMELINE_LENGTH:
            with self._lock:
                self._read_finished(oldest_only=True)
                while len(self._pending) > TIMELINE_LENGTH:
                    self._forget(self._pending.popleft())

    def timeline(self) -> tuple[TimelineEntry, ...]:
        """The operations finished lately, by start."""
        with self._lock:
            with suppress(DeviceLostError):
                self._read_finished()
            return tuple(sorted(self._entries, key=lambda entry: (entry.start_us, entry.end_us)))

    def close(self) -> None:
        """Destroy all events. Idempotent."""
        with self._lock:
            self._pending.clear()
            self._pool.clear()
            while self._events:
                self._context.free(driver.cuEventDestroy, self._events.pop())

    def _read_finished(self, *, oldest_only: bool = False) -> None:
        """Read what has finished; ``oldest_only`` stops at the first that has not."""
        for _ in range(len(self._pending)):
            pending = self._pending.popleft()
            if not self._context.ready(driver.cuEventQuery, pending.end):
                if oldest_only:
                    self._pending.appendleft(pending)
                    return
                self._pending.append(pending)
                continue
            since_ms = self._elapsed_ms(self._anchor, pending.start)
            start_us = self._anchor_us + since_ms * 1000
            end_us = start_us + self._elapsed_ms(pending.start, pending.end) * 1000
            self._entries.append(
                TimelineEntry(
                    op=pending.op,
                    name=pending.name,
                    device=self._context.ordinal,
                    stream=pending.stream,
                    start_us=start_us,
                    end_us=end_us,
                    simulated=False,
                )
            )
            if since_ms > _ANCHOR_MS:
                self.give_back(self._anchor)
                self._anchor, self._anchor_us = pending.start, start_us
                self.give_back(pending.end)
            else:
                self._forget(pending)

    def _forget(self, pending: _Pending) -> None:
        self.give_back(pending.start)
        self.give_back(pending.end)

    def _elapsed_ms(self, start: Any, end: Any) -> float:
        return float(self._context.call(driver.cuEventElapsedTime, start, end))

    def _set_anchor(self) -> tuple[Any, float]:
        """Record an event between two readings of the clock, as close as in the best of some."""
        event, best = self.take(), self.take()
        shortest_us = middle_us = float("inf")
        stream = self._context.call(driver.cuStreamCreate, 1)  # CU_STREAM_NON_BLOCKING
        try:
            for _ in range(_TRIES):
                before_us = time.perf_counter_ns() / 1000
                self._context.call(driver.cuEventRecord, event, stream)
                self._context.call(driver.cuEventSynchronize, event)
                after_us = time.perf_counter_ns() / 1000
                if after_us - before_us < shortest_us:
                    shortest_us, middle_us = after_us - before_us, (before_us + after_us) / 2
                    event, best = best, event
        finally:
            self._context.free(driver.cuStreamDestroy, stream)
        self.give_back(event)
        return best, middle_us


class _Bracket:
    """See ``Tracer.bracket``. An operation that raises leaves no entry."""

    __slots__ = ("_name", "_op", "_start", "_stream", "_tracer")

    def __init__(self, tracer: Tracer, stream: CudaStream, op: str, name: str) -> None:
        self._tracer, self._stream, self._op, self._name = tracer, stream, op, name

    def __enter__(self) -> None:
        self._start = self._tracer.take()
        self._stream.context.call(driver.cuEventRecord, self._start, self._stream.raw)

    def __exit__(self, error: type[BaseException] | None, *rest: object) -> None:
        if error is not None:
            self._tracer.give_back(self._start)
            return
        end = self._tracer.take()
        self._stream.context.call(driver.cuEventRecord, end, self._stream.raw)
        self._tracer.add(_Pending(self._op, self._name, self._stream.label, self._start, end))
