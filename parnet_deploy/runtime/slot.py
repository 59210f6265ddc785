"""One in-flight call of an executor: its streams, events and buffers, and prepared steps."""

from __future__ import annotations

import ctypes
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import ExitStack, closing, suppress
from functools import partial

from ..errors import BackendError, ExecutionError, OutOfMemoryError
from ..placement import Placement, Segment
from ..spec import IMAGE, LOGITS, ModelSpec
from .bound import Bound, Call, Capturer, Mode, worst_mode
from .device import Binding, Buffer, Device, Engine, Event, Stream, Tensor
from .finite import FiniteCheck
from .program import Lane, Program, Step

Shape = tuple[int, int, int]
"""(N, H, W) of a call."""

BOUND_SHAPES = 32
"""How many (N, H, W) a slot keeps bound; the least recently used goes first."""


class Slot:
    """Everything that one call at a time needs. Not thread-safe: the executor hands it out.

    Owns: streams, events, buffers, bindings and graphs. Borrows: devices and engines.
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
        check_finite: bool = False,
        where: str = "slot",
    ) -> None:
        self.bound: OrderedDict[Shape, Bound] = OrderedDict()
        self.nbytes = 0
        self.mode: Mode | None = None  # the worst of all shapes so far
        self._busy = False  # work may be left from a call that was interrupted
        self._outside = False  # work may be left in a caller's stream; ``_done`` is behind it
        self._index, self._program = index, program
        self._check_finite, self._where = check_finite, where
        self._devices, self._engines = dict(devices), engines
        self._tensors = spec.tensors
        self._segments = {segment.name: segment for segment in placement.segments}
        self._buffers: dict[tuple[str, int], Buffer] = {}
        self._streams: dict[Lane, Stream] = {}
        self._events: list[Event] = []
        self._image = self._logits = 0
        home = devices[program.main.device]
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
            self._main, self._home = self._streams[program.main], home
            far = [lane for lane in program.lanes if lane.device != program.main.device]
            self._elsewhere = [self._streams[lane] for lane in far]
            self._entries: dict[int, Event] = {}  # where callers' streams stood, by device
            self._done = home.create_event()
            made.callback(self._done.close)
            for device in program.events:
                event = devices[device].create_event()
                made.callback(event.close)
                self._events.append(event)
            result = self._buffers[LOGITS, program.main.device]
            self._staging = 0  # where images wait on the host, if a device cannot read the caller's
            if not home.direct:
                result = home.allocate_host(result.nbytes)
                made.callback(result.close)
                staging = home.allocate_host(self._tensor_bytes(IMAGE, largest))
                made.callback(staging.close)
                self._staging = staging.address
            self._result = result.address  # on the host, whatever the device
            made.callback(self._unbind)
            self._resources = made.pop_all()

    def run(self, image: int, logits: int, shape: Shape) -> None:
        """See ``Executor.run``."""
        bound = self.bind(shape)
        for binding in bound.images:
            binding.set_address(IMAGE, image)
        self._busy = True
        if not self._staging:
            self._finish(bound.staged, logits, bound)
            return
        ctypes.memmove(self._staging, image, bound.image_bytes)
        with self._home.current():
            if self._outside:  # buffers may be in use in a stream that is not ours
                self._main.wait(self._done)
            self._finish(bound.staged, logits, bound)

    def run_on(self, image: int, logits: int, shape: Shape, handle: int, device: int) -> None:
        """See ``Executor.run_on``."""
        outside = self._devices[device].borrow_stream(handle)
        with closing(outside), self._home.current():
            bound = self.bind(shape)
            self._image, self._logits = image, self._result
            self._busy = True
            self._finish((*self._behind(outside, device), *bound.free), logits, bound)

    def launch(
        self, image: int, logits: int, shape: Shape, handle: int, written: Event | None
    ) -> None:
        """See ``Executor.launch``."""
        outside = self._home.borrow_stream(handle)
        with closing(outside), self._home.current():
            bound = self.bind(shape)
            self._busy = True
            try:
                if bound.body is not None and outside.launchable:
                    self._launch_graph(bound, image, logits, outside)
                else:
                    self._image, self._logits = image, logits
                    for call in (*self._behind(outside, self._home.ordinal), *bound.free):
                        call()
                    self._main.record(self._done)
                    outside.wait(self._done)
                if written is not None:
                    outside.record(written)
                self._busy, self._outside = False, True
            except BaseException:
                with suppress(BackendError):
                    outside.record(self._done)
                    self._outside = True
                self._drain()  # by the event: what went wrong in the caller's stream stays there
                raise

    def bind(self, shape: Shape) -> Bound:
        """Prepare the program for a shape, or find it prepared.

        Nothing is left then of a call that was interrupted.
        """
        if self._busy:
            self._drain()
        if shape in self.bound:
            self.bound.move_to_end(shape)
            return self.bound[shape]
        if self._outside:  # preparing runs for real, in buffers that a call before may still use
            self._drain()
        if len(self.bound) >= BOUND_SHAPES:
            self.bound.popitem(last=False)[1].close()
        try:
            bound = self._prepare_shape(shape)
        except OutOfMemoryError:
            if not self.bound:
                raise
            self._unbind()  # the other shapes make room, and are prepared again when they come
            bound = self._prepare_shape(shape)
        self.bound[shape] = bound
        self.mode = worst_mode(*filter(None, (self.mode, bound.mode)))
        return bound

    def close(self) -> None:
        """Wait for what is still enqueued, then free everything. Idempotent."""
        self._drain()
        self._resources.close()

    def _behind(self, outside: Stream, device: int) -> tuple[Call, ...]:
        """What lets the main lane go on behind a caller's stream, and behind the call before."""
        if device not in self._entries:
            self._entries[device] = event = self._devices[device].create_event()
            self._resources.callback(event.close)
        entry = self._entries[device]
        calls = (partial(outside.record, entry), partial(self._main.wait, entry))
        return (*calls, partial(self._main.wait, self._done)) if self._outside else calls

    def _finish(self, calls: tuple[Call, ...], logits: int, bound: Bound) -> None:
        """Make the calls, wait for the main lane, and hand the logits over."""
        try:
            for call in calls:
                call()
            self._main.synchronize()
            for stream in self._elsewhere:  # a fault there need not have reached the main lane
                stream.check()
            self._busy = self._outside = False
        except BaseException:
            self._drain()
            raise
        if bound.finite is not None and not bound.finite():
            raise ExecutionError(
                f"{self._where}: got logits with NaN or infinities, expected finite numbers. Look "
                "for them in the input; if it has none, run: parnet-deploy verify."
            )
        ctypes.memmove(logits, self._result, bound.logits_bytes)

    def _launch_graph(self, bound: Bound, image: int, logits: int, outside: Stream) -> None:
        """Everything in the caller's stream: one copy in, one launch, one copy out."""
        assert bound.body is not None
        main = self._program.main.device
        if self._outside:
            outside.wait(self._done)
        self._outside = True
        self._home.upload(self._buffers[IMAGE, main], image, bound.image_bytes, outside)
        bound.body.launch(outside)
        self._home.download(logits, self._buffers[LOGITS, main], bound.logits_bytes, outside)
        outside.record(self._done)

    def _prepare_shape(self, shape: Shape) -> Bound:
        """Bind and capture. If that fails, what it began is over before anything is freed."""
        self._busy = True
        with ExitStack() as made:
            try:
                bound = self._bind(shape, made)
            except BaseException:
                self._drain()
                raise
        self._busy = False
        return bound

    def _bind(self, shape: Shape, made: ExitStack) -> Bound:
        bindings: dict[str, Binding] = {}
        for name in self._segments:
            bindings[name] = self._bind_engine(name, shape)
            made.callback(bindings[name].close)
        capturer = Capturer(
            program=self._program, devices=self._devices, streams=self._streams, resources=made
        )
        steps = self._program.steps
        fixed = [self._prepare(step, shape, bindings, staged=True) for step in steps]
        staged = capturer.capture(fixed, lambda step: True)
        free = staged
        if self._staging:
            calls = [self._prepare(step, shape, bindings, staged=False) for step in steps]
            free = capturer.capture(calls, lambda step: step.op not in ("upload", "download"))
        images = [
            bindings[name]
            for name, segment in self._segments.items()
            if IMAGE in segment.inputs and self._devices[segment.device].direct
        ]
        logits_bytes = self._tensor_bytes(LOGITS, shape)
        return Bound(
            staged=staged.calls,
            free=free.calls,
            body=free.body,
            images=tuple(images),
            logits_bytes=logits_bytes,
            image_bytes=self._tensor_bytes(IMAGE, shape),
            mode=worst_mode((staged.mode, staged.why_not), (free.mode, free.why_not)),
            finite=FiniteCheck(self._result, logits_bytes) if self._check_finite else None,
            resources=made.pop_all(),
        )

    def _drain(self) -> None:
        """Wait until no stream has work left, and drop what went wrong: it was raised before.

        Anything else that a stream raises (a kernel's bug, Ctrl-C) surfaces after the last one.
        """
        with ExitStack() as streams:  # goes on whatever one of them raises
            for stream in self._streams.values():
                streams.callback(_settle, stream)
            if self._outside:
                streams.callback(_settle, self._done)
        self._busy = self._outside = False

    def _unbind(self) -> None:
        with ExitStack() as parts:  # whatever one of them raises
            for bound in self.bound.values():
                parts.callback(bound.close)
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

    def _prepare(
        self, step: Step, shape: Shape, bindings: Mapping[str, Binding], *, staged: bool
    ) -> Call:
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
            if staged:
                return partial(device.upload, here, self._staging, nbytes, stream)
            return lambda: device.upload(here, self._image, nbytes, stream)
        if staged:
            return partial(device.download, self._result, here, nbytes, stream)
        return lambda: device.download(self._logits, here, nbytes, stream)

    def _shape(self, tensor: str, shape: Shape) -> tuple[int, ...]:
        batch, height, width = shape
        return (batch, *self._tensors[tensor].shape(height, width))

    def _tensor_bytes(self, tensor: str, shape: Shape) -> int:
        return self._tensors[tensor].nbytes(*shape)


def _settle(work: Stream | Event) -> None:
    with suppress(BackendError):
        work.synchronize()


class _Absent:
    """Stands for the caller's memory before the first call. Nothing may read it."""

    address = 0
    nbytes = 0

    def __init__(self, device: int) -> None:
        self.device = device

    def close(self) -> None:
        """Nothing to free."""
