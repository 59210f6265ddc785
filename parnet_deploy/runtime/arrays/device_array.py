"""``DeviceArray``: memory of ours that other libraries read without a copy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...errors import InputError
from ...extras import import_for
from .dlpack import CPU, CUDA, make_capsule

LEGACY_DEFAULT_STREAM = 1
"""How DLPack and ``__cuda_array_interface__`` write the handle 0."""

_NO_SYNC = -1


class DeviceArray:
    """C-contiguous float32 memory of one device, for ``from_dlpack`` and CUDA array consumers.

    torch, cupy, jax: ``torch.from_dlpack(x)``. numba, cupy: ``__cuda_array_interface__`` (version
    3). pycuda: ``to_gpuarray``. Everything they return holds on to ``owner`` for as long as it
    lives, with or without this object.

    Args:
        address: Where the memory starts.
        shape: Extents.
        device: Ordinal of the device; None for host memory.
        stream: Raw handle of the cuda_stream whose work writes the memory; None if the content is
            there already.
        owner: What keeps the memory alive.
        order: Makes the work that is enqueued later in a consumer's stream, named by its raw
            handle, wait for the content. None: then only a consumer that uses ``stream`` is served.
    """

    def __init__(
        self,
        *,
        address: int,
        shape: tuple[int, ...],
        device: int | None,
        stream: int | None,
        owner: object,
        order: Callable[[int], None] | None = None,
    ) -> None:
        self.address, self.shape, self.device = address, shape, device
        self.stream, self.owner, self._order = stream, owner, order

    def __repr__(self) -> str:
        where = "the host" if self.device is None else f"CUDA device {self.device}"
        return f"DeviceArray(shape={self.shape}, float32, on {where}, at {self.address:#x})"

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        total = 4
        for extent in self.shape:
            total *= extent
        return total

    def __dlpack_device__(self) -> tuple[int, int]:
        return (CPU, 0) if self.device is None else (CUDA, self.device)

    def __dlpack__(
        self,
        *,
        stream: int | None = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> object:
        """A capsule, as the Python array API standard says. The consumer's stream is ordered."""
        here = self.__dlpack_device__()
        if dl_device is not None and tuple(dl_device) != here:
            raise BufferError(f"output: it is on device {here}, not {dl_device}.")
        if copy:
            raise BufferError("output: it is not copied here. Copy it in the other library.")
        if self.device is None:
            if stream is not None:
                raise BufferError("output: it is on the host, where there are no streams.")
        elif stream != _NO_SYNC:
            self._before(LEGACY_DEFAULT_STREAM if stream is None else stream)
        return make_capsule(
            self.address, self.shape, self.owner, device=here, max_version=max_version
        )

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        if self.device is None:
            raise AttributeError("output: it is on the host, not on a CUDA device.")
        stream = self.stream
        return {
            "version": 3,
            "shape": self.shape,
            "typestr": "<f4",
            "data": (self.address, False),
            "strides": None,
            "stream": LEGACY_DEFAULT_STREAM if stream == 0 else stream,
        }

    def to_gpuarray(self) -> Any:
        """The same memory as a ``pycuda.gpuarray.GPUArray``; pycuda does no ordering: synchronise.

        Without this method: ``GPUArray(x.shape, np.float32, gpudata=x.address, base=x)``.

        Raises:
            InputError: The memory is the host's.
            MissingExtraError: pycuda is not installed.
        """
        if self.device is None:
            raise InputError("output: got host memory, expected a CUDA device. Use np.from_dlpack.")
        gpuarray = import_for("pycuda.gpuarray", "pycuda")
        return gpuarray.GPUArray(self.shape, "float32", gpudata=self.address, base=self)

    def _before(self, consumer: int) -> None:
        if consumer == 0:
            raise BufferError("output: got stream 0, expected 1 (legacy default) or a handle.")
        if self._order is not None:
            self._order(consumer)
        elif self.stream is not None and consumer != (self.stream or LEGACY_DEFAULT_STREAM):
            raise BufferError(
                f"output: got stream {consumer:#x}, expected {self.stream:#x}, in which it is "
                "written. Use that stream, or synchronise it and pass stream=-1."
            )
