"""Streams and events of a CUDA device, our own and those of others."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from cuda.bindings import driver

from ...errors import BackendError, DeviceLostError, DeviceUnavailableError, InputError
from ..device import Event
from .context import ClosedContext, CudaContext, Health
from .driver import ask

if TYPE_CHECKING:
    from .trace import Tracer

DEFAULT_STREAMS = {0: 1, 1: 1, 2: 2}
_NEVER_CAPTURING = (0, 1)
_NO_STREAM = (1, 400, 709)  # CUDA_ERROR_INVALID_VALUE, INVALID_HANDLE, CONTEXT_IS_DESTROYED
"""Handles that name the default stream of whatever context is current: legacy (0 and 1) and that
of the thread (2). 0 becomes 1, so that it means the same however cuda.bindings was set up."""

_record, _wait = driver.cuEventRecord, driver.cuStreamWaitEvent
_synchronize = driver.cuStreamSynchronize
_UNTIMED = int(driver.CUevent_flags.CU_EVENT_DISABLE_TIMING)
_NOTHING: AbstractContextManager[None] = nullcontext()


class CudaEvent:
    """See ``device.Event``. Without timing, which makes it cheaper.

    A stream of a foreign context records an event of that context, so this one keeps a twin in
    each. ``recorded`` is the one that was recorded last, in the context ``where``.

    Owns: the event and its twins. A foreign context must outlive the event, or be gone for good.
    """

    __slots__ = ("_twins", "context", "device", "raw", "recorded", "where")

    def __init__(self, context: CudaContext) -> None:
        self.context: CudaContext | ClosedContext = context
        self.device = context.ordinal
        self.raw = context.call(driver.cuEventCreate, _UNTIMED)
        self.recorded = self.raw
        self.where: CudaContext | ClosedContext = context
        self._twins: dict[CudaContext, Any] = {}

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return isinstance(self.context, ClosedContext)

    def twin(self, context: CudaContext) -> Any:
        """The event to record in a stream of a foreign context."""
        if context not in self._twins:
            self._twins[context] = context.call(driver.cuEventCreate, _UNTIMED)
        return self._twins[context]

    def synchronize(self) -> None:
        """See ``device.Event``."""
        self.where.call(driver.cuEventSynchronize, self.recorded)

    def close(self) -> None:
        """See ``device.Event``."""
        context = self.context
        if isinstance(context, ClosedContext):
            return
        self.context = self.where = ClosedContext("event", self.device)
        try:
            for foreign, raw in self._twins.items():
                if is_alive(foreign):  # else the event went with its context
                    foreign.free(driver.cuEventDestroy, raw)
        finally:
            self._twins.clear()
            context.free(driver.cuEventDestroy, self.raw)


class CudaStream:
    """See ``device.Stream``. ``handle`` is the raw cudaStream_t, ``label`` its name in timelines.

    ``launchable`` is False in a foreign context.
    """

    __slots__ = ("_owned", "_tracer", "context", "device", "handle", "label", "launchable", "raw")

    def __init__(
        self,
        context: CudaContext,
        raw: Any,
        *,
        label: str,
        owned: bool,
        tracer: Tracer | None = None,
    ) -> None:
        self.context: CudaContext | ClosedContext = context
        self.device = context.ordinal
        self.raw = raw
        self.handle = int(raw)
        self.label = label
        self.launchable = not context.foreign
        self._owned = owned
        self._tracer = None if context.foreign else tracer

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return isinstance(self.context, ClosedContext)

    def record(self, event: Event) -> None:
        """See ``device.Stream``."""
        own, context = _own_event(event), self.context
        raw = own.raw
        if own.context is not context:
            raw = self._event_here(own)
        context.call(_record, raw, self.raw)
        own.recorded, own.where = raw, context

    def wait(self, event: Event) -> None:
        """See ``device.Stream``."""
        self.context.call(_wait, self.raw, _usable(event).recorded, 0)

    def synchronize(self) -> None:
        """See ``device.Stream``. The GIL is released meanwhile."""
        self.context.call(_synchronize, self.raw)

    def check(self) -> None:
        """Raise what has gone wrong so far, without waiting.

        Raises:
            DeviceLostError: The device is lost.
            ExecutionError: Another error of the stream.
        """
        if isinstance(self.context, CudaContext):
            self.context.ready(driver.cuStreamQuery, self.raw)

    def traced(self, op: str, name: str) -> AbstractContextManager[None]:
        """A ``with`` around what is enqueued as one operation; timed if the device traces."""
        return _NOTHING if self._tracer is None else self._tracer.bracket(self, op, name)

    def close(self) -> None:
        """See ``device.Stream``. What is enqueued in it still runs."""
        context = self.context
        if isinstance(context, CudaContext):
            self.context = ClosedContext("stream", self.device)
            if self._owned:
                context.free(driver.cuStreamDestroy, self.raw)

    def _event_here(self, event: CudaEvent) -> Any:
        """The event that this stream can record in place of one of another context."""
        context = self.context
        if isinstance(context, CudaContext) and isinstance(event.context, CudaContext):
            if event.device != self.device:
                raise BackendError(
                    f"event: got one of device {event.device}, expected device {self.device}."
                )
            if context.foreign:
                return event.twin(context)
        return _usable(event).raw  # the stream is closed: the call says so


def borrow(primary: CudaContext, handle: int, known: dict[int, CudaContext]) -> CudaStream:
    """Wrap a stream that somebody else owns. See ``device.Device.borrow_stream``.

    Args:
        primary: The context of the device.
        handle: Raw handle. A default stream belongs to the context that is current in the calling
            thread, or to the primary one if none of this device is.
        known: Foreign contexts met before, by their unique id; grows.

    Raises:
        DeviceUnavailableError: The stream is of another device.
    """
    if primary.health.lost is not None:
        raise DeviceLostError(primary.health.lost, primary.ordinal)
    raw = driver.CUstream(DEFAULT_STREAMS.get(handle, handle))
    context = primary
    if handle in DEFAULT_STREAMS:
        status, found = driver.cuCtxGetCurrent()
        if not status and int(found or 0) not in (0, primary.handle):
            current = _foreign(primary, found, known)
            context = current if current.ordinal == primary.ordinal else primary
    else:
        status, found = driver.cuStreamGetCtx(raw)
        if not status and int(found) != primary.handle:
            context = _foreign(primary, found, known)
    if int(status) in _NO_STREAM:
        raise InputError(
            f"stream {handle:#x}: got a handle that the driver does not know, expected a stream "
            "of this process that still exists."
        )
    if status:
        raise primary.failed("cuStreamGetCtx", status)
    if context.ordinal != primary.ordinal:
        raise DeviceUnavailableError(
            f"stream {handle:#x}: got one of device {context.ordinal}, expected device "
            f"{primary.ordinal}, which computes the logits. Give a stream of that device."
        )
    if handle not in _NEVER_CAPTURING:
        with context.guard():
            status, capturing = driver.cuStreamIsCapturing(raw)
        if status or capturing:
            raise InputError(
                f"stream {handle:#x}: got one that is being captured, expected one that runs: a "
                "graph of the caller would use our buffers beside other calls. End the capture."
            )
    return CudaStream(context, raw, label=f"stream {handle:#x}", owned=False)


def is_alive(context: CudaContext) -> bool:
    """Whether a foreign context still exists, and not another one with its handle."""
    status, number = driver.cuCtxGetId(context.raw)
    return not status and int(number) == context.number


def _foreign(primary: CudaContext, raw: Any, known: dict[int, CudaContext]) -> CudaContext:
    """The context of a stream that is not in the primary one.

    A context may get the address of one that is gone, so an id tells them apart.
    """
    number = int(ask(driver.cuCtxGetId, raw, device=primary.ordinal))
    context = known.get(number)
    if context is None:
        context = CudaContext(-1, raw, Health(), foreign=True, number=number)
        context.ordinal = int(context.call(driver.cuCtxGetDevice))
        known[number] = context
    return context


def _own_event(event: Event) -> CudaEvent:
    if not isinstance(event, CudaEvent):
        raise BackendError(f"event: got a {type(event).__name__}, expected one of a CUDA device.")
    return event


def _usable(event: Event) -> CudaEvent:
    own = _own_event(event)
    if own.closed:
        raise BackendError(f"event of device {own.device}: it is closed. Make a new one.")
    return own
