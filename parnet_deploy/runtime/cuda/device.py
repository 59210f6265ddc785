"""NVIDIA GPUs as devices, over the driver API alone: no CUDA runtime, no PyTorch.

Each device retains its primary context, the one that PyTorch, TensorRT and the CUDA runtime use,
and makes every call in it; the caller's context is never changed. Calls release the GIL.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import Any, Protocol, TypeVar

from cuda.bindings import driver

from ...errors import BackendError, DeviceLostError
from ...machine.gpus import gpu_facts
from ..device import Buffer, Capture, TimelineEntry
from .context import CudaContext, CudaGuard
from .driver import PointerFacts, pointer_facts, usable_devices
from .graph import CudaGraph, record_graph
from .memory import CudaBuffer, own_buffer
from .stream import CudaEvent, CudaStream, borrow
from .trace import Tracer

__all__ = [
    "CudaBuffer",
    "CudaDevice",
    "CudaEvent",
    "CudaGraph",
    "CudaStream",
    "PointerFacts",
    "open_devices",
    "pointer_facts",
    "usable_devices",
]

WARM_UPS = 2
"""How often work runs for real before it is captured: lazy loading must be over by then."""

_LOG = logging.getLogger(__name__)
_PRUNE_AT = 256
_NON_BLOCKING = int(driver.CUstream_flags.CU_STREAM_NON_BLOCKING)
_ALREADY_ENABLED = 704
_NO_PEER = (217, 711)  # PEER_ACCESS_UNSUPPORTED, TOO_MANY_PEERS

_copy = driver.cuMemcpyAsync
_copy_here = driver.cuMemcpyDtoDAsync
_copy_to_peer = driver.cuMemcpyPeerAsync


class _Closable(Protocol):
    @property
    def closed(self) -> bool: ...

    def close(self) -> None: ...


_Made = TypeVar("_Made", bound=_Closable)


class CudaDevice:
    """See ``device.Device``. Thread-safe; one in-flight slot uses a stream or event at a time.

    ``trace`` times every operation (``timeline``); there are no graphs then. ``peers`` says which
    other devices it reaches without a detour through the host.

    Owns: its hold on the primary context. What was made from it and not closed, ``close`` closes.

    Raises:
        DeviceUnavailableError: There is no driver, no such device, or it admits nobody.
    """

    direct = False
    simulated = False

    def __init__(self, ordinal: int, *, trace: bool = False) -> None:
        self.ordinal = ordinal
        self.peers: dict[int, bool] = {}
        self._foreign: dict[int, CudaContext] = {}
        self._made: list[_Closable] = []
        self._enough = _PRUNE_AT
        self._lock = threading.Lock()
        self._tracer: Tracer | None = None
        self._closed = False
        with ExitStack() as undo:
            self.context = CudaContext.open_primary(ordinal)
            undo.callback(self.context.release)
            with self.context.guard():
                status, self._least, self._greatest = driver.cuCtxGetStreamPriorityRange()
            if status:
                raise self.context.failed("cuCtxGetStreamPriorityRange", status)
            if trace:
                self._tracer = Tracer(self.context)
            undo.pop_all()

    def current(self) -> CudaGuard:
        """A ``with`` in which the primary context is current, for calls of other libraries."""
        return self.context.guard()

    def facts(self) -> dict[str, Any]:
        """What the device is (see ``gpus.gpu_facts``) and which peers it reaches, as JSON types."""
        peer = {f"{self.ordinal}->{other}": can for other, can in self.peers.items()}
        return {**gpu_facts(self.ordinal), "peer": peer}

    def create_stream(self, lane: int, rank: int = 0) -> CudaStream:
        """See ``device.Device``. Ranks beyond what the device tells apart share the lowest."""
        priority = min(self._greatest + rank, self._least)
        raw = self.context.call(driver.cuStreamCreateWithPriority, _NON_BLOCKING, priority)
        stream = CudaStream(self.context, raw, label=f"lane{lane}", owned=True, tracer=self._tracer)
        return self._keep(stream)

    def borrow_stream(self, handle: int) -> CudaStream:
        """See ``device.Device``. Streams of other contexts of this device too: not launchable.

        Their context must stay until the events recorded in them are closed. 0, 1 and 2 are the
        default streams of the caller's current context, or of the primary one if it has none.

        Raises:
            DeviceUnavailableError: The stream is of another device.
        """
        return borrow(self.context, handle, self._foreign)

    def create_event(self) -> CudaEvent:
        """See ``device.Device``."""
        return self._keep(CudaEvent(self.context))

    def allocate(self, nbytes: int) -> CudaBuffer:
        """See ``device.Device``."""
        return self._keep(CudaBuffer(self.context, nbytes, on_device=True))

    def allocate_host(self, nbytes: int) -> CudaBuffer:
        """See ``device.Device``. Pinned for all devices."""
        return self._keep(CudaBuffer(self.context, nbytes, on_device=False))

    def copy(self, target: Buffer, source: Buffer, nbytes: int, stream: CudaStream) -> None:
        """See ``device.Device``. Without peer access CUDA goes through the host."""
        there, here = own_buffer(target), own_buffer(source)
        if self._tracer is None:
            _enqueue_copy(there, here, nbytes, stream)
            return
        with stream.traced("copy", f"device {here.device} -> {there.device}"):
            _enqueue_copy(there, here, nbytes, stream)

    def upload(self, target: Buffer, address: int, nbytes: int, stream: CudaStream) -> None:
        """See ``device.Device``."""
        there = own_buffer(target)
        if self._tracer is None:
            stream.context.call(_copy, there.raw, address, nbytes, stream.raw)
            return
        with stream.traced("copy", f"host -> device {there.device}"):
            stream.context.call(_copy, there.raw, address, nbytes, stream.raw)

    def download(self, address: int, source: Buffer, nbytes: int, stream: CudaStream) -> None:
        """See ``device.Device``."""
        here = own_buffer(source)
        if self._tracer is None:
            stream.context.call(_copy, address, here.raw, nbytes, stream.raw)
            return
        with stream.traced("copy", f"device {here.device} -> host"):
            stream.context.call(_copy, address, here.raw, nbytes, stream.raw)

    def capture(self, work: Callable[[], None], stream: CudaStream) -> Capture:
        """See ``device.Device``. Runs ``work`` twice before, for real.

        Raises:
            BackendError: ``work`` does not even run without a capture.
        """
        if self._tracer is not None:
            return Capture(None, "tracing: each operation is timed by itself")
        for _ in range(WARM_UPS):
            work()
        stream.synchronize()
        try:
            return Capture(self._keep(record_graph(self.context, work, stream)))
        except DeviceLostError:
            raise
        except BackendError as error:
            return Capture(None, str(error))

    def locate(self, address: int) -> tuple[int | None, bool]:
        """See ``device.Device``. Memory of every device, not of this one only."""
        with self.context.guard():
            return pointer_facts(address, self.ordinal)

    def timeline(self) -> tuple[TimelineEntry, ...]:
        """See ``device.Device``. Measured times, on the axis that ``trace.Tracer`` names."""
        return () if self._tracer is None else self._tracer.timeline()

    def enable_peer(self, other: CudaDevice) -> None:
        """Let this device reach the memory of another; ``peers`` says whether it does.

        It stays so after ``close``: others in this process may have come to rely on it.
        """
        can = self.context.call(driver.cuDeviceCanAccessPeer, self.ordinal, other.ordinal)
        if can:
            with self.context.guard():
                status = driver.cuCtxEnablePeerAccess(other.context.raw, 0)[0]
            if status and int(status) not in (_ALREADY_ENABLED, *_NO_PEER):
                raise self.context.failed("cuCtxEnablePeerAccess", status)
            can = int(status) not in _NO_PEER
        self.peers[other.ordinal] = bool(can)

    def close(self) -> None:
        """See ``device.Device``."""
        if self._closed:
            return
        self._closed = True
        with ExitStack() as parts:  # last in, first out; goes on whatever one of them raises
            parts.callback(self.context.release)
            if self._tracer is not None:
                parts.callback(self._tracer.close)
            for made in self._made:
                parts.callback(made.close)
            self._made = []

    def _keep(self, made: _Made) -> _Made:
        """Remember what must be closed before the device; forget what was."""
        with self._lock:
            self._made.append(made)
            if len(self._made) > self._enough:
                self._made = [kept for kept in self._made if not kept.closed]
                self._enough = 2 * len(self._made) + _PRUNE_AT
        return made


def open_devices(ordinals: Iterable[int], *, trace: bool = False) -> dict[int, CudaDevice]:
    """Open devices and let each reach the memory of the others, where the machine can.

    Raises:
        DeviceUnavailableError: One of them is not there; none stays open.
    """
    devices: dict[int, CudaDevice] = {}
    with ExitStack() as undo:
        for ordinal in dict.fromkeys(ordinals):
            devices[ordinal] = CudaDevice(ordinal, trace=trace)
            undo.callback(devices[ordinal].close)
        for device in devices.values():
            for other in devices.values():
                if device is not other:
                    device.enable_peer(other)
        undo.pop_all()
    detours = [name for d in devices.values() for name, can in _peers(d).items() if not can]
    if detours:
        _LOG.warning(
            "no peer access %s: copies between these devices go through the host, which is slower",
            ", ".join(detours),
        )
    return devices


def _peers(device: CudaDevice) -> dict[str, bool]:
    return {f"{device.ordinal}->{other}": can for other, can in device.peers.items()}


def _enqueue_copy(there: CudaBuffer, here: CudaBuffer, nbytes: int, stream: CudaStream) -> None:
    call = stream.context.call
    if there.device == here.device:
        call(_copy_here, there.raw, here.raw, nbytes, stream.raw)
    elif there.device < 0 or here.device < 0:
        call(_copy, there.raw, here.raw, nbytes, stream.raw)
    else:
        call(
            _copy_to_peer,
            there.raw,
            there.context.raw,
            here.raw,
            here.context.raw,
            nbytes,
            stream.raw,
        )
