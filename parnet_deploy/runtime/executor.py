"""Runs a program on devices, for any backend. The only place where work happens concurrently.

Everything is made at open: for each in-flight slot its own streams, events and buffers, and engines
bound to them. A call takes a free slot, walks the program (each step is one prepared call) and
waits for the main lane. A tensor that stays on its device is written by its producer where its
consumers read it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from queue import SimpleQueue
from typing import Any

from ..errors import BackendError, DeviceLostError, InputError, SpecError
from ..input_size import InputSize
from ..placement import Placement, check_placement
from ..spec import LOGITS, ModelSpec
from .arrays.inputs import check_count, check_stream
from .bound import worst_mode
from .device import Buffer, Device, Engine, Event, TimelineEntry
from .lifetime import refusal, stay_if_ending
from .program import Program, compile_program
from .slot import Shape, Slot

_ONCE = (True,)  # one blocking SimpleQueue.get
_FIRST = (0,)
_INTAKE_LANE = 999
_CLOSED = "executor: it is closed. Open it again."


class Executor:
    """A placement, ready to run. Thread-safe: as many calls run at once as there are slots.

    Owns: streams, events and buffers. Borrows: devices and engines, which the caller closes after
    the executor.

    Args:
        spec: The network.
        placement: Its segments.
        devices: By ordinal.
        engines: By segment.
        input_size: Sizes to accept.
        max_batch: Largest batch to accept.
        slots: Calls that run at once.
        program: What to run; None: what the placement compiles to.
        check_finite: Whether ``run`` and ``run_on`` refuse to hand over NaN and infinities.
        where: For messages.

    Raises:
        SpecError: The placement does not compute the network.
        OutOfMemoryError: The buffers of so many slots do not fit.
    """

    def __init__(
        self,
        *,
        spec: ModelSpec,
        placement: Placement,
        devices: Mapping[int, Device],
        engines: Mapping[str, Engine],
        input_size: InputSize,
        max_batch: int = 1,
        slots: int = 1,
        program: Program | None = None,
        check_finite: bool = False,
        where: str = "executor",
    ) -> None:
        check_placement(placement, spec)
        check_count("slots", slots)
        if input_size.fixed:
            spec.check_size(*input_size.low)
        direct = [ordinal for ordinal in placement.devices if devices[ordinal].direct]
        self.program = program or compile_program(placement, spec, direct)
        self._spec, self._size, self._max_batch = spec, input_size, max_batch
        self.slots, self.largest = slots, (max_batch, *input_size.high)
        self._devices = {ordinal: devices[ordinal] for ordinal in placement.devices}
        self.home = self._devices[self.program.main.device]
        self._intakes: dict[int, Any] = {}
        self._free: SimpleQueue[Slot | None] = SimpleQueue()
        self._slots: list[Slot] = []
        self._returned: list[Slot | None] = []  # the slots that close has got back
        self._closing = threading.RLock()
        self._closed = False
        self._lost: DeviceLostError | None = None
        try:
            for index in range(slots):
                slot = Slot(
                    index=index,
                    program=self.program,
                    spec=spec,
                    placement=placement,
                    devices=devices,
                    engines=engines,
                    largest=self.largest,
                    check_finite=check_finite,
                    where=where,
                )
                self._slots.append(slot)
            if input_size.fixed:
                for slot in self._slots:
                    slot.bind((1, *input_size.low))
        except BaseException:
            self._free_slots()
            raise
        for slot in self._slots:
            self._free.put(slot)

    def run(self, image: int, logits: int, shape: Shape) -> None:
        """Read an image batch at one address, write its logits at another, and wait.

        Args:
            image: Address of (N, 3, H, W) float32, C-contiguous, on the host.
            logits: Address of (N, K) float32 on the host. Written only if all went well.
            shape: (N, H, W).

        Raises:
            InputError: The batch or the size is not one that this executor accepts.
            ExecutionError: The run failed; the next may succeed.
            DeviceLostError: A device is gone; every later call raises this again.
        """
        self._call(Slot.run, shape, (image, logits, shape))

    def run_on(
        self, image: int, logits: int, shape: Shape, stream: int, device: int | None = None
    ) -> None:
        """The same with an image that is in memory of the backend, behind the work of a stream.

        Args:
            image: Device address, valid until this returns.
            logits: As in ``run``: on the host, written only if all went well.
            shape: As in ``run``.
            stream: Raw handle of the stream in which the image is made.
            device: Whose stream it is, one of ``devices``; None: the one with the logits.

        Raises:
            DeviceUnavailableError: The backend has no streams of others.
        """
        where = self.home.ordinal if device is None else device
        self._call(Slot.run_on, shape, (image, logits, shape, check_stream(stream), where))

    def launch(
        self, image: int, logits: int, shape: Shape, stream: int, written: Event | None = None
    ) -> None:
        """Enqueue the same behind the work of the caller's stream, and return without waiting.

        Both addresses are the backend's (device or pinned host memory) and must stay valid until
        the stream gets there. On one device with a graph everything runs in the caller's stream
        itself. A failure surfaces when the stream is synchronised, or at the next call. The first
        call with a shape prepares it, which waits for the device.

        Args:
            image: As in ``run``.
            logits: As in ``run``, but undefined if the run fails.
            shape: As in ``run``.
            stream: Raw handle of a stream of the device that computes the logits.
            written: An event of that device, to be recorded behind the logits.

        Raises:
            DeviceUnavailableError: The backend has no streams of others.
            InputError: The handle is not an integer of 64 bits.
        """
        self._call(Slot.launch, shape, (image, logits, shape, check_stream(stream), written))

    @property
    def devices(self) -> tuple[int, ...]:
        """Ordinals of the devices that take part, ascending. ``home`` computes the logits."""
        return tuple(sorted(self._devices))

    def locate(self, address: int) -> tuple[int | None, bool]:
        """Whose memory is at an address; see ``device.Device``."""
        return self.home.locate(address)

    def allocate_logits(self) -> Buffer:
        """New memory for the logits of the largest batch, on the device that computes them.

        Owns: the caller frees it.
        """
        logits = self._spec.tensors[LOGITS]
        return self.home.allocate(logits.nbytes(self._max_batch, *self._size.high))

    def intake(self, device: int) -> int:
        """Raw handle of a stream of ours, before which producers on a device order their work."""
        with self._closing:
            if not self._closed:
                if device not in self._intakes:
                    self._intakes[device] = self._devices[device].create_stream(_INTAKE_LANE)
                return int(self._intakes[device].handle)
        raise refusal(_CLOSED)

    def check(self, shape: Shape) -> None:
        """Refuse a batch or image size for which the buffers were not made.

        Raises:
            InputError: With what is accepted.
        """
        batch, height, width = shape
        if not 1 <= batch <= self._max_batch:
            raise InputError(
                f"batch: got {batch}, expected 1 to {self._max_batch}. "
                "Split it, or run: parnet-deploy build --max-batch N."
            )
        try:
            self._size.check(self._spec, height, width)
        except SpecError as error:
            raise InputError(str(error)) from error

    def timeline(self) -> tuple[TimelineEntry, ...]:
        """The operations finished lately on devices that record them, by start time."""
        entries = [entry for device in self._devices.values() for entry in device.timeline()]
        return tuple(sorted(entries, key=lambda entry: (entry.start_us, entry.end_us)))

    def describe(self) -> dict[str, Any]:
        """The program and what it needs, as plain JSON types."""
        tensors = self._spec.tensors
        modes = [slot.mode for slot in self._slots if slot.mode is not None]
        mode, why_not = worst_mode(*modes) if modes else ("eager", "nothing has run yet")
        copies = []
        for step in self.program.steps:
            if step.op == "copy":
                nbytes = tensors[step.name].nbytes(self._max_batch, *self._size.high)
                route = {"from": step.lane.device, "to": step.target, "max_bytes": nbytes}
                copies.append({"tensor": step.name, **route})
        return {
            "slots": self.slots,
            "mode": mode,
            "mode_reason": why_not,
            "main": {"device": self.program.main.device, "lane": self.program.main.lane},
            "lanes": [{"device": lane.device, "lane": lane.lane} for lane in self.program.lanes],
            "steps": [str(step) for step in self.program.steps],
            "copies": copies,
            "buffer_bytes": sum(slot.nbytes for slot in self._slots),
            "simulated": any(device.simulated for device in self._devices.values()),
        }

    def close(self) -> None:
        """Wait for the calls in flight, then free everything. Idempotent.

        If a signal handler interrupts it by an exception, the next call of it goes on.
        """
        self._closed = True
        with self._closing:
            while len(self._returned) < len(self._slots):
                # A slot comes back when its call is done.
                self._returned.extend(map(self._free.get, _ONCE))
            self._free_slots()
            if self._free.empty():
                self._free.put(None)  # whoever still waits for a slot learns that there is none

    def _call(self, work: Callable[..., None], shape: Shape, arguments: tuple[Any, ...]) -> None:
        """Borrow a slot for one call.

        A signal handler may raise between any two bytecodes (Ctrl-C, an alarm). So a slot moves
        from the free ones to ``mine`` and back in one C call, and is given back a second time
        where the first was interrupted: giving back what is not there does nothing.
        """
        if shape not in self._slots[0].bound:  # a size seen before was checked before
            self.check(shape)
        mine: list[Slot | None] = []
        try:
            try:
                mine.extend(map(self._free.get, _ONCE))
                slot = mine[0]
                if slot is None or self._closed:
                    raise BackendError(_CLOSED)
                if self._lost is not None:
                    raise DeviceLostError(str(self._lost), self._lost.device)
                work(slot, *arguments)
            finally:
                self._give_back(mine)
        except DeviceLostError as error:
            self._lost = error
            raise
        except BackendError:
            if self._closed:
                stay_if_ending()  # the slot was given back
            raise
        finally:
            if mine:
                self._give_back(mine)

    def _give_back(self, mine: list[Slot | None]) -> None:
        if mine:
            any(map(self._free.put, map(mine.pop, _FIRST)))  # one C call: see _call

    def _free_slots(self) -> None:
        resources: list[Any] = [*self._slots, *self._intakes.values()]
        for resource in resources:
            with suppress(DeviceLostError):
                resource.close()
