"""Memory of a CUDA device, and pinned memory of the host."""

from __future__ import annotations

from typing import Any

from cuda.bindings import driver

from ...errors import BackendError, OutOfMemoryError
from ..device import Buffer
from .context import CudaContext

_PORTABLE = 1  # CU_MEMHOSTALLOC_PORTABLE: pinned for every context, not for the current one alone


class CudaBuffer:
    """See ``device.Buffer``. ``raw`` is the address as the driver wants it."""

    __slots__ = ("_on_device", "address", "context", "device", "nbytes", "raw")

    def __init__(self, context: CudaContext, nbytes: int, *, on_device: bool) -> None:
        self.context = context
        self.device = context.ordinal if on_device else -1
        self.nbytes = nbytes
        self._on_device = on_device
        try:
            if on_device:
                self.raw: Any = context.call(driver.cuMemAlloc, nbytes)
            else:
                address = context.call(driver.cuMemHostAlloc, nbytes, _PORTABLE)
                self.raw = driver.CUdeviceptr(address)  # one address space for all (UVA)
        except OutOfMemoryError as error:
            raise OutOfMemoryError(_explain(context, nbytes, on_device)) from error
        self.address = int(self.raw)

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self.address == 0

    def close(self) -> None:
        """See ``device.Buffer``. On CUDA this waits for the work of the device."""
        if self.closed:
            return
        address, self.address = self.address, 0
        if self._on_device:
            self.context.free(driver.cuMemFree, self.raw)
        else:
            self.context.free(driver.cuMemFreeHost, address)


def own_buffer(buffer: Buffer) -> CudaBuffer:
    """The buffer as one of ours, not closed.

    Raises:
        BackendError: It is of another backend, or closed.
    """
    if not isinstance(buffer, CudaBuffer):
        raise BackendError(f"buffer: got a {type(buffer).__name__}, expected one of a CUDA device.")
    if buffer.closed:
        raise BackendError(f"buffer of device {buffer.device}: it is closed. Make a new one.")
    return buffer


def _explain(context: CudaContext, nbytes: int, on_device: bool) -> str:
    step = "Lower the batch, the image size or the slots."
    if not on_device:
        return f"pinned host memory: got no {nbytes} bytes. {step}"
    with context.guard():
        status, left, total = driver.cuMemGetInfo()
    known = "" if status else f", {left} of {total} are left"
    return f"device {context.ordinal} memory: got no {nbytes} bytes{known}. {step}"
