"""Simulated devices with streams, events and memory. ``simulator`` decides what happens when."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from itertools import count
from typing import Any

from ...errors import (
    BackendError,
    DeviceUnavailableError,
    OutOfMemoryError,
)
from ..device import Buffer, Capture, Event, TimelineEntry
from ..host import HostBuffer
from .capture import Call, FakeGraph
from .memory import CallersMemory, FakeBuffer, own_buffer
from .options import FakeOptions
from .simulator import Mark, Memory, Queue, Record, Simulator, Wait, Work


class FakeEvent:
    """See ``device.Event``."""

    def __init__(self, device: FakeDevice) -> None:
        self.owner = device
        self.mark: Mark | None = None

    def synchronize(self) -> None:
        """See ``device.Event``."""
        if self.mark is not None:
            self.owner.simulator.reach(self.mark)

    def close(self) -> None:
        """Nothing to free."""


class FakeStream:
    """See ``device.Stream``. ``handle`` stands for the raw handle of a cuda_stream."""

    launchable = True

    def __init__(self, device: FakeDevice, queue: Queue, handle: int, owned: bool) -> None:
        self.device = device.ordinal
        self.owner = device
        self.queue = queue
        self.handle = handle
        self._owned = owned

    def put(self, work: Work) -> None:
        """Enqueue an operation."""
        self.owner.enqueue(self, work)

    def record(self, event: Event) -> None:
        """See ``device.Stream``."""
        own = _own_event(event)
        if own.owner is not self.owner:
            raise BackendError(
                f"event: got one of device {own.owner.ordinal}, expected device {self.device}."
            )
        if self.owner.captured(lambda stream: stream.record(event), self, recorded=own):
            return
        mark = Mark()
        self.owner.enqueue(self, Record(mark))
        own.mark = mark

    def wait(self, event: Event) -> None:
        """See ``device.Stream``."""
        own = _own_event(event)
        if self.owner.captured(lambda stream: stream.wait(event), self, waited=own):
            return
        if own.mark is not None:
            self.owner.enqueue(self, Wait(own.mark))

    def synchronize(self) -> None:
        """See ``device.Stream``."""
        self.owner.simulator.synchronize(self.queue)

    def check(self) -> None:
        """See ``device.Stream``. Only a lost device is known before somebody synchronises."""
        self.owner.simulator.check(self.device)

    def close(self) -> None:
        """See ``device.Stream``."""
        if self._owned:
            self.owner.forget(self)


class FakeDevice:
    """See ``device.Device``. Devices of one machine share a simulator."""

    direct = False
    simulated = True

    def __init__(self, ordinal: int, simulator: Simulator, options: FakeOptions) -> None:
        self.ordinal = ordinal
        self.simulator = simulator
        self.options = options
        self.used_bytes = 0
        self._streams: dict[int, FakeStream] = {}
        self._handles = count((ordinal + 1) * 1000)
        self._addresses = count((ordinal + 1) << 40, 1 << 32)
        self._local = threading.local()  # a capture sees its own thread only

    def current(self) -> AbstractContextManager[object]:
        """See ``device.Device``. Nothing to do."""
        return nullcontext()

    def create_stream(self, lane: int, rank: int = 0) -> FakeStream:
        """See ``device.Device``. The simulator gives no stream precedence."""
        self.simulator.check(self.ordinal)
        handle = next(self._handles)
        queue = Queue(device=self.ordinal, label=f"lane{lane}")
        self.simulator.add_queue(queue)
        self._streams[handle] = FakeStream(self, queue, handle, owned=True)
        return self._streams[handle]

    def borrow_stream(self, handle: int) -> FakeStream:
        """See ``device.Device``."""
        if handle not in self._streams:
            raise DeviceUnavailableError(
                f"stream {handle:#x}: fake device {self.ordinal} has no such stream."
            )
        return FakeStream(self, self._streams[handle].queue, handle, owned=False)

    def create_event(self) -> FakeEvent:
        """See ``device.Device``."""
        self.simulator.check(self.ordinal)
        return FakeEvent(self)

    def allocate(self, nbytes: int) -> FakeBuffer:
        """See ``device.Device``."""
        self.simulator.check(self.ordinal)
        limit = self.options.faults.memory_bytes.get(self.ordinal)
        with self.simulator.lock:
            if limit is not None and self.used_bytes + nbytes > limit:
                raise OutOfMemoryError(
                    f"device {self.ordinal} memory: got no {nbytes} bytes, "
                    f"{limit - self.used_bytes} of {limit} are left. "
                    "Lower the batch, the image size or the slots."
                )
            self.used_bytes += nbytes
        return FakeBuffer(self, nbytes, next(self._addresses))

    def allocate_host(self, nbytes: int) -> HostBuffer:
        """See ``device.Device``."""
        return HostBuffer(nbytes, device=-1)

    def copy(self, target: Buffer, source: Buffer, nbytes: int, stream: FakeStream) -> None:
        """See ``device.Device``."""
        there, here = own_buffer(target).memory, own_buffer(source).memory

        def start() -> Callable[[], None]:
            data = here.data[: nbytes // 4].copy()
            return lambda: there.data.__setitem__(slice(nbytes // 4), data)

        name = f"device {source.device} -> {target.device}"
        self._copy(name, nbytes, (here,), (there,), start, stream, target.device)

    def upload(self, target: Buffer, address: int, nbytes: int, stream: FakeStream) -> None:
        """See ``device.Device``. The caller's memory is read when the operation starts."""
        there, source = own_buffer(target).memory, self._at(address)

        def start() -> Callable[[], None]:
            data = source.read(nbytes)
            return lambda: there.data.__setitem__(slice(nbytes // 4), data)

        name = f"host -> device {target.device}"
        self._copy(name, nbytes, source.memories, (there,), start, stream, source.device)

    def download(self, address: int, source: Buffer, nbytes: int, stream: FakeStream) -> None:
        """See ``device.Device``. The caller's memory is written when the operation ends."""
        here, target = own_buffer(source).memory, self._at(address)

        def start() -> Callable[[], None]:
            data = here.data[: nbytes // 4].copy()
            return lambda: target.write(data)

        name = f"device {source.device} -> host"
        self._copy(name, nbytes, (here,), target.memories, start, stream, target.device)

    def capture(self, work: Callable[[], None], stream: Any) -> Capture:
        """See ``device.Device``. Remembers the calls that ``work`` makes, to make them again."""
        if not self.options.graphs:
            return Capture(None, "the fake devices were told to have no graphs")
        self._local.capture = graph = FakeGraph(stream)
        try:
            work()
            graph.check_joined()
        finally:
            self._local.capture = None
        return Capture(graph)

    def captured(
        self,
        call: Call,
        stream: FakeStream,
        recorded: FakeEvent | None = None,
        waited: FakeEvent | None = None,
    ) -> bool:
        """Whether the call went into a capture instead of a queue."""
        capture: FakeGraph | None = getattr(self._local, "capture", None)
        if capture is not None:
            capture.add(call, stream, recorded, waited)
        return capture is not None

    def enqueue(self, stream: FakeStream, item: Work | Record | Wait) -> None:
        """Into the capture if there is one, else into the stream's queue."""
        if not self.captured(lambda to: self.enqueue(to, item), stream):
            self.simulator.put(stream.queue, item)

    def forget(self, stream: FakeStream) -> None:
        """Destroy a stream of this device."""
        if self._streams.pop(stream.handle, None) is not None:
            self.simulator.remove_queue(stream.queue)

    def locate(self, address: int) -> tuple[int | None, bool]:
        """See ``device.Device``. Any device knows the memory of all, by where it starts."""
        memory = self.simulator.memories.get(address)
        return (None, False) if memory is None else (memory.device, True)

    def timeline(self) -> tuple[TimelineEntry, ...]:
        """See ``device.Device``. Simulated times."""
        with self.simulator.lock:
            entries = tuple(self.simulator.entries)
        return tuple(entry for entry in entries if entry.device == self.ordinal)

    def close(self) -> None:
        """Nothing to free."""

    def _at(self, address: int) -> CallersMemory:
        return CallersMemory(address, self.simulator.memories.get(address))

    def _copy(
        self,
        name: str,
        nbytes: int,
        reads: tuple[Memory, ...],
        writes: tuple[Memory, ...],
        start: Callable[[], Callable[[], None]],
        stream: FakeStream,
        target: int | None,
    ) -> None:
        stream.put(
            Work(
                op="copy",
                name=name,
                duration_us=self.options.launch_us + nbytes / self.options.bytes_per_us,
                reads=reads,
                writes=writes,
                start=start,
                target=target,
            )
        )


def _own_event(event: Event) -> FakeEvent:
    if not isinstance(event, FakeEvent):
        raise BackendError(f"event: got a {type(event).__name__}, expected one of a fake device.")
    return event
