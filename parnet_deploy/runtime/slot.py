"""One in-flight call of an executor: its streams, events and buffers, and prepared steps."""

from __future__ import annotations

import ctypes
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial

from ..errors import BackendError
from ..placement import Placement, Segment
from ..spec import IMAGE, LOGITS, ModelSpec
from .device import Binding, Buffer, Device, Engine, Event, Graph, Stream, Tensor
from .program import Lane, Program, Step

Shape = tuple[int, int, int]
"""(N, H, W) of a call."""

Call = Callable[[], object]

BOUND_SHAPES = 32
"""How many (N, H, W) a slot keeps bound; the least recently used goes first."""


@dataclass(frozen=True, kw_only=True)
class _Bound:
    """The program for one shape. ``images`` read the caller's memory in place."""

    calls: tuple[Call, ...]
    images: tuple[Binding, ...]
    bindings: tuple[Binding, ...]
    logits_bytes: int


class Slot:
    """Everything that one call at a time needs. Not thread-safe: the executor hands it out.

    Owns: streams, events, buffers and bindings. Borrows: devices and engines.
    """

    def __init__(
        self,
        *,
        index: int,
        program: Program,
        spec: ModelSpec,
        placement: Placement,
        devices: Mapping[int, Device],
        engines: Mapping[str, Engine],
        largest: Shape,
    ) -> None:
        self.bound: OrderedDict[Shape, _Bound] = OrderedDict()
        self.nbytes = 0
        self.mode = "eager"  # how the program runs: "graph" if a device replays its body
        self._busy = False  # work may be left from a call that was interrupted
        self._index, self._program = index, program
        self._devices, self._engines = devices, engines
        self._tensors = spec.tensors
        self._segments = {segment.name: segment for segment in placement.segments}
        self._buffers: dict[tuple[str, int], Buffer] = {}
        self._streams: dict[Lane, Stream] = {}
        self._events: list[Event] = []
        self._image = self._logits = 0
        with ExitStack() as made:  # frees what was made if something cannot be
            outputs = ((name, s.device) for s in placement.segments for name in s.outputs)
            for name, device in dict.fromkeys((*outputs, *program.buffers)):
                nbytes = self._tensor_bytes(name, largest)
                buffer = devices[device].allocate(nbytes)
                made.callback(buffer.close)
                self._buffers[name, device] = buffer
                self.nbytes += nbytes
            for rank, lane in enumerate(program.lanes):
                stream = devices[lane.device].create_stream(lane.lane, rank)
                made.callback(stream.close)
                self._streams[lane] = stream
            self._main = self._streams[program.main]
            self._entry = devices[program.main.device].create_event()
            made.callback(self._entry.close)
            for device in program.events:
                event = devices[device].create_event()
                made.callback(event.close)
                self._events.append(event)
            result = self._buffers[LOGITS, program.main.device]
            if not devices[program.main.device].direct:
                result = devices[program.main.device].allocate_host(result.nbytes)
                made.callback(result.close)
            self._result = result.address  # on the host, whatever the device
            made.callback(self._unbind)
            self._resources = made.pop_all()

    def run(self, image: int, logits: int, shape: Shape) -> None:
        """See ``Executor.run``."""
        if self._busy:
            self._drain()
        bound = self.bind(shape)
        for binding in bound.images:
            binding.set_address(IMAGE, image)
        self._image, self._logits = image, self._result
        self._busy = True
        try:
            for call in bound.calls:
                call()
            self._main.synchronize()
            self._busy = False
        except BaseException:
            self._drain()
            raise
        ctypes.memmove(logits, self._result, bound.logits_bytes)

    def launch(self, image: int, logits: int, shape: Shape, handle: int) -> None:
        """See ``Executor.launch``."""
        outside = self._devices[self._program.main.device].borrow_stream(handle)
        if self._busy:
            self._drain()
        bound = self.bind(shape)
        self._image, self._logits = image, logits
        self._busy = True
        try:
            outside.record(self._entry)
            self._main.wait(self._entry)
            for call in bound.calls:
                call()
            self._main.record(self._entry)
            outside.wait(self._entry)
            self._busy = False
        except BaseException:
            self._drain()
            raise
        finally:
            outside.close()

    def bind(self, shape: Shape) -> _Bound:
        """Prepare the program for a shape, or find it prepared."""
        if shape in self.bound:
            self.bound.move_to_end(shape)
            return self.bound[shape]
        if len(self.bound) >= BOUND_SHAPES:
            for binding in self.bound.popitem(last=False)[1].bindings:
                binding.close()
        with ExitStack() as made:  # closes what was bound if something cannot be
            bound = self._bind(shape, made)
            made.pop_all()
        self.bound[shape] = bound
        return bound

    def _bind(self, shape: Shape, made: ExitStack) -> _Bound:
        bindings: dict[str, Binding] = {}
        for name in self._segments:
            bindings[name] = self._bind_engine(name, shape)
            made.callback(bindings[name].close)
        calls: list[Call] = [self._prepare(step, shape, bindings) for step in self._program.steps]
        graph = self._capture(calls)
        if graph is not None:
            made.callback(graph.close)
            calls[self._program.first : self._program.last] = [partial(graph.launch, self._main)]
            self.mode = "graph"
        images = [
            bindings[name]
            for name, segment in self._segments.items()
            if IMAGE in segment.inputs and self._devices[segment.device].direct
        ]
        return _Bound(
            calls=tuple(calls),
            images=tuple(images),
            bindings=tuple(bindings.values()),
            logits_bytes=self._tensor_bytes(LOGITS, shape),
        )

    def close(self) -> None:
        """Wait for what is still enqueued, then free everything. Idempotent."""
        self._drain()
        self._resources.close()

    def _drain(self) -> None:
        """Wait until no stream has work left, and drop what went wrong: it was raised before.

        Anything else that a stream raises (a kernel's bug, Ctrl-C) surfaces after the last one.
        """
        with ExitStack() as streams:  # goes on whatever one of them raises
            for stream in self._streams.values():
                streams.callback(_settle, stream)
        self._busy = False

    def _unbind(self) -> None:
        for bound in self.bound.values():
            for binding in bound.bindings:
                binding.close()
        self.bound.clear()

    def _bind_engine(self, name: str, shape: Shape) -> Binding:
        segment = self._segments[name]
        tensors = {
            tensor: Tensor(buffer=self._buffer(tensor, segment), shape=self._shape(tensor, shape))
            for tensor in (*segment.inputs, *segment.outputs)
        }
        return self._engines[name].bind(tensors, self._index)

    def _buffer(self, tensor: str, segment: Segment) -> Buffer:
        if tensor == IMAGE and self._devices[segment.device].direct:
            return _Absent(segment.device)  # each call says where the caller's image is
        return self._buffers[tensor, segment.device]

    def _prepare(self, step: Step, shape: Shape, bindings: Mapping[str, Binding]) -> Call:
        """One step as a call without arguments."""
        device, stream = self._devices[step.lane.device], self._streams[step.lane]
        if step.op == "run":
            return partial(self._engines[step.name].enqueue, bindings[step.name], stream)
        if step.op == "record":
            return partial(stream.record, self._events[step.event])
        if step.op == "wait":
            return partial(stream.wait, self._events[step.event])
        nbytes = self._tensor_bytes(step.name, shape)
        here = self._buffers[step.name, step.lane.device]
        if step.op == "copy":
            there = self._buffers[step.name, step.target]
            return partial(device.copy, there, here, nbytes, stream)
        if step.op == "upload":
            return lambda: device.upload(here, self._image, nbytes, stream)
        return lambda: device.download(self._logits, here, nbytes, stream)

    def _capture(self, calls: list[Call]) -> Graph | None:
        """Ask the device for a graph of the body, if all of it is on one device."""
        devices = {lane.device for lane in self._program.lanes}
        if len(devices) > 1:
            return None
        body = tuple(calls[self._program.first : self._program.last])

        def work() -> None:
            for call in body:
                call()

        return self._devices[devices.pop()].capture(work, self._main).graph

    def _shape(self, tensor: str, shape: Shape) -> tuple[int, ...]:
        batch, height, width = shape
        return (batch, *self._tensors[tensor].shape(height, width))

    def _tensor_bytes(self, tensor: str, shape: Shape) -> int:
        total = 4
        for extent in self._shape(tensor, shape):
            total *= extent
        return total


def _settle(stream: Stream) -> None:
    with suppress(BackendError):
        stream.synchronize()


class _Absent:
    """Stands for the caller's memory before the first call. Nothing may read it."""

    address = 0
    nbytes = 0

    def __init__(self, device: int) -> None:
        self.device = device

    def close(self) -> None:
        """Nothing to free."""
