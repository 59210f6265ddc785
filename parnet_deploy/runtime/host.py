"""The host as a device: streams that are threads, events that are locks, memory from numpy.

Lane 0 is *inline*: its work runs in the thread that enqueues it, with no hand-off. Every other
stream has one persistent worker thread. Engines release the GIL while they run.
"""

from __future__ import annotations

import ctypes
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from queue import SimpleQueue

import numpy as np

from ..errors import BackendError, DeviceUnavailableError, OutOfMemoryError
from .device import Buffer, Capture, Event, Stream, TimelineEntry

Work = Callable[[], object]

ALIGNMENT_BYTES = 64
_TIMELINE_LENGTH = 4096


class _Mark:
    """One record of an event. ``gate`` is held until the record is reached."""

    __slots__ = ("error", "gate")

    def __init__(self) -> None:
        self.error: BaseException | None = None
        self.gate = threading.Lock()
        self.gate.acquire()

    def reach(self, error: BaseException | None) -> None:
        self.error = error
        self.gate.release()

    def wait(self) -> BaseException | None:
        with self.gate:
            return self.error


class HostEvent:
    """See ``device.Event``. Each record is a lock of its own, so a wait keeps its meaning."""

    def __init__(self) -> None:
        self.mark: _Mark | None = None

    def synchronize(self) -> None:
        """See ``device.Event``."""
        if self.mark is not None:
            self.mark.wait()

    def close(self) -> None:
        """Nothing to free."""


class _Lane:
    """What the work of one stream shares: the error that stopped it, and the trace."""

    __slots__ = ("error", "label", "trace")

    def __init__(self, label: str, trace: deque[TimelineEntry] | None) -> None:
        self.error: BaseException | None = None
        self.label = label
        self.trace = trace

    def run(self, work: Work, name: str) -> None:
        """Run ``work`` unless something before it failed. An exception stays with the lane."""
        if self.error is not None:
            return
        start = time.perf_counter_ns() if self.trace is not None else 0
        try:
            work()
        except Exception as error:
            self.error = error
        if self.trace is not None:
            self.trace.append(_entry(name, self.label, start, time.perf_counter_ns()))

    def take_over(self, mark: _Mark) -> None:
        """Wait for another stream, then share its failure."""
        error = mark.wait()
        if self.error is None:
            self.error = error

    def raise_error(self) -> None:
        """Raise what went wrong, once."""
        error, self.error = self.error, None
        if error is not None:
            raise error


class InlineStream(_Lane):
    """A stream whose work runs at once, in the caller's thread: it is its own lane."""

    launchable = True
    device = 0

    submit = _Lane.run
    synchronize = check = _Lane.raise_error

    def record(self, event: Event) -> None:
        """See ``device.Stream``."""
        mark = _Mark()
        mark.reach(self.error)
        _own(event).mark = mark

    def wait(self, event: Event) -> None:
        """Block the caller until the event is reached."""
        mark = _own(event).mark
        if mark is not None:
            self.take_over(mark)

    def close(self) -> None:
        """Nothing to free."""


class ThreadStream:
    """A stream with a worker thread.

    Owns: the thread. It ends at ``close``, or when the stream is garbage.
    """

    launchable = True

    def __init__(self, label: str, trace: deque[TimelineEntry] | None) -> None:
        self.device = 0
        self._lane = _Lane(label, trace)
        self._queue: SimpleQueue[Work | None] = SimpleQueue()
        # The thread knows the queue only: a reference to the stream would keep both alive for ever.
        self._thread = threading.Thread(
            target=_serve, args=(self._queue,), name=f"parnet-{label}", daemon=True
        )
        self._thread.start()
        self._finalizer = weakref.finalize(self, self._queue.put, None)
        self._finalizer.atexit = False  # work may be in flight; see lifetime

    def submit(self, work: Work, name: str) -> None:
        """Enqueue ``work``. An exception surfaces at ``synchronize``."""
        lane = self._lane
        self._put(lambda: lane.run(work, name))

    def record(self, event: Event) -> None:
        """See ``device.Stream``."""
        lane, mark = self._lane, _Mark()
        self._put(lambda: mark.reach(lane.error))
        _own(event).mark = mark

    def wait(self, event: Event) -> None:
        """See ``device.Stream``."""
        lane, mark = self._lane, _own(event).mark
        if mark is not None:
            self._put(lambda: lane.take_over(mark))

    def synchronize(self) -> None:
        """See ``device.Stream``."""
        if not self._finalizer.alive:
            return  # closed: the worker has finished everything
        mark = _Mark()
        self._put(lambda: mark.reach(None))
        mark.wait()
        self._lane.raise_error()

    def check(self) -> None:
        """See ``device.Stream``."""
        self._lane.raise_error()

    def close(self) -> None:
        """Finish what is enqueued and end the thread. Idempotent."""
        if self._finalizer.detach() is not None:  # when the interpreter ends, a call does nothing
            self._queue.put(None)
        self._thread.join()

    def _put(self, work: Work) -> None:
        if not self._finalizer.alive:
            raise BackendError("host stream: it is closed.")
        self._queue.put(work)


HostStream = InlineStream | ThreadStream


class HostBuffer:
    """Aligned host memory. Filled with NaN, so that reading too early cannot pass unnoticed."""

    def __init__(self, nbytes: int, device: int = 0) -> None:
        self.device = device
        self.nbytes = nbytes
        try:
            self._memory = np.empty(nbytes + ALIGNMENT_BYTES, dtype=np.uint8)
        except (MemoryError, ValueError, OverflowError) as error:
            raise OutOfMemoryError(
                f"host memory: got no {nbytes} bytes. Lower the batch, the image size or the slots."
            ) from error
        start: int = self._memory.ctypes.data
        self._offset = -start % ALIGNMENT_BYTES
        self.address = start + self._offset
        self._memory[self._offset : self._offset + nbytes // 4 * 4].view(np.float32)[:] = np.nan

    def close(self) -> None:
        """Free the memory. Idempotent."""
        self._memory = np.empty(0, dtype=np.uint8)
        self.address = 0


class HostDevice:
    """See ``device.Device``. ``trace`` keeps the last operations with measured times."""

    ordinal = 0
    direct = True
    simulated = False

    def __init__(self, *, trace: bool = False) -> None:
        self._trace: deque[TimelineEntry] | None = None
        if trace:
            self._trace = deque(maxlen=_TIMELINE_LENGTH)

    def current(self) -> AbstractContextManager[object]:
        """See ``device.Device``. Nothing to do."""
        return nullcontext()

    def create_stream(self, lane: int, rank: int = 0) -> HostStream:
        """Lane 0: the caller's thread. Others: a worker thread. The host knows no priorities."""
        label = f"lane{lane}"
        return InlineStream(label, self._trace) if lane == 0 else ThreadStream(label, self._trace)

    def borrow_stream(self, handle: int) -> Stream:
        """The host has no streams of others."""
        raise DeviceUnavailableError(
            f"stream {handle:#x}: this runtime runs on the CPU, which has no cuda_stream. "
            "Leave stream out, or open a plan of a GPU backend."
        )

    def create_event(self) -> HostEvent:
        """See ``device.Device``."""
        return HostEvent()

    def allocate(self, nbytes: int) -> HostBuffer:
        """See ``device.Device``."""
        return HostBuffer(nbytes)

    def allocate_host(self, nbytes: int) -> HostBuffer:
        """See ``device.Device``."""
        return HostBuffer(nbytes, device=-1)

    def copy(self, target: Buffer, source: Buffer, nbytes: int, stream: HostStream) -> None:
        """See ``device.Device``."""
        self.upload(target, source.address, nbytes, stream)

    def upload(self, target: Buffer, address: int, nbytes: int, stream: HostStream) -> None:
        """See ``device.Device``."""
        self._move(target.address, address, nbytes, stream)

    def download(self, address: int, source: Buffer, nbytes: int, stream: HostStream) -> None:
        """See ``device.Device``."""
        self._move(address, source.address, nbytes, stream)

    def capture(self, work: Callable[[], None], stream: HostStream) -> Capture:
        """See ``device.Device``."""
        return Capture(None, "the CPU has no graphs")

    def locate(self, address: int) -> tuple[int | None, bool]:
        """See ``device.Device``. The CPU knows host memory only."""
        return (None, False)

    def timeline(self) -> tuple[TimelineEntry, ...]:
        """See ``device.Device``. Empty unless ``trace`` was asked for."""
        return tuple(self._trace or ())

    def close(self) -> None:
        """Nothing to free."""

    @staticmethod
    def _move(target: int, source: int, nbytes: int, stream: HostStream) -> None:
        stream.submit(lambda: ctypes.memmove(target, source, nbytes), "copy")


def _serve(queue: SimpleQueue[Work | None]) -> None:
    """The life of a worker. Work never raises: ``_Lane.run`` keeps exceptions."""
    while (work := queue.get()) is not None:
        work()
        del work  # keep nothing alive while idle


def _own(event: Event) -> HostEvent:
    if not isinstance(event, HostEvent):
        raise BackendError(f"event: got a {type(event).__name__}, expected one of the host.")
    return event


def _entry(name: str, label: str, start_ns: int, end_ns: int) -> TimelineEntry:
    op = "copy" if name == "copy" else "run"
    return TimelineEntry(
        op=op,
        name=name,
        device=0,
        stream=label,
        start_us=start_ns / 1000,
        end_us=end_ns / 1000,
        simulated=False,
    )
