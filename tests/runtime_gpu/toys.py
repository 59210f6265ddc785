"""What the tests over the stand-in share: arrays on its devices, and engines made of kernels."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from typing import Any

import numpy as np
from cuda.bindings import driver
from numpy.typing import NDArray

from parnet_deploy.errors import BackendError
from parnet_deploy.placement import Segment
from parnet_deploy.runtime.cuda.device import CudaDevice, CudaStream
from parnet_deploy.runtime.cuda.driver import error_of
from parnet_deploy.runtime.device import Tensor
from tests.stubs.cuda_stub import CudaStub, CudaStubError

Array = NDArray[np.float32]


def at(address: int, shape: tuple[int, ...]) -> Array:
    """The float32 array at an address, not a copy."""
    count = int(np.prod(shape))
    memory = (ctypes.c_float * count).from_address(address)
    return np.frombuffer(memory, dtype=np.float32).reshape(shape)


def filled(value: float, count: int = 4) -> Array:
    return np.full(count, value, np.float32)


def ok(result: tuple[Any, ...]) -> Any:
    """What a raw driver call gives; it must not fail."""
    assert not result[0], result[0]
    return result[-1]


def foreign_context(ordinal: int) -> Any:
    """A context like pycuda's make_context, current in this thread."""
    try:
        return ok(driver.cuCtxCreate(None, 0, ordinal))
    except TypeError:  # before 13: without the parameters
        return ok(driver.cuCtxCreate(0, ordinal))


class KernelBinding:
    """See ``device.Binding``."""

    def __init__(self, tensors: Mapping[str, Tensor], inputs: tuple[str, ...]) -> None:
        self.touches = tuple(tensor.buffer.address for tensor in tensors.values())
        arrays = {name: at(t.buffer.address, t.shape) for name, t in tensors.items()}
        self.sources = {name: arrays[name] for name in inputs}
        self.targets = {name: array for name, array in arrays.items() if name not in inputs}

    def close(self) -> None:
        """Nothing to free."""


class KernelEngine:
    """See ``device.Engine``: one kernel for the segment, on the stand-in's streams."""

    def __init__(self, cuda: CudaStub, device: CudaDevice, segment: Segment, kernel: Any) -> None:
        self.inputs, self.outputs = segment.inputs, segment.outputs
        self._cuda, self._device, self._kernel, self._name = cuda, device, kernel, segment.name

    def bind(self, tensors: Mapping[str, Tensor], slot: int) -> KernelBinding:
        return KernelBinding(tensors, self.inputs)

    def enqueue(self, binding: KernelBinding, stream: CudaStream) -> None:
        def compute() -> None:
            for name, value in self._kernel(binding.sources).items():
                binding.targets[name][...] = value

        with stream.traced("run", self._name), self._device.current():
            try:
                self._cuda.launch(stream.handle, compute, binding.touches)
            except CudaStubError as error:
                raise refusal(error, self._device.ordinal) from error

    def close(self) -> None:
        """Nothing to free."""


def refusal(error: CudaStubError, device: int) -> BackendError:
    return error_of(driver.CUresult(error.code), "cuLaunchKernel", device)
