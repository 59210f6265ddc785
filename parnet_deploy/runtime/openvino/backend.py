"""The ``openvino`` backend: segments as networks that OpenVINO has compiled for the CPU.

Requests read and write preallocated memory, bound by address: nothing is copied between segments.
A run is made in the thread that asks for it, which releases the GIL.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Mapping
from math import prod
from typing import Any
from weakref import WeakValueDictionary

import numpy as np

from ...machine.cores import usable_cores
from ...placement import Segment
from ...plan import Plan
from ...spec import ModelSpec
from ..device import Tensor
from ..engine_file import EngineFile
from ..host import HostStream
from ..host_backend import HostBackend
from .failures import CAUGHT, run_error
from .library import ov
from .network import Shapes, check_network, compile_network, read_network


class OpenVinoBinding:
    """See ``device.Binding``. ``run`` is one inference on the bound memory.

    Owns: a request of the compiled network, which it keeps alive.
    """

    def __init__(self, compiled: Any, segment: str, tensors: Mapping[str, Tensor]) -> None:
        self._compiled, self._segment = compiled, segment
        self._request: Any = compiled.create_infer_request()
        self._shapes = {name: tensor.shape for name, tensor in tensors.items()}
        self._addresses: dict[str, int] = {}
        for name, tensor in tensors.items():
            if tensor.buffer.address:  # 0: not known yet
                self.set_address(name, tensor.buffer.address)

    def set_address(self, name: str, address: int) -> None:
        """See ``device.Binding``."""
        if self._addresses.get(name) != address:
            self._request.set_tensor(name, _tensor_at(address, self._shapes[name]))
            self._addresses[name] = address

    def run(self) -> None:
        """Run the request.

        Raises:
            ExecutionError: OpenVINO reported a failure.
            OutOfMemoryError: Working memory could not be allocated.
        """
        try:
            self._request.infer(share_outputs=True)  # else it copies every output to return it
        except CAUGHT as error:
            raise run_error(error, f"segment {self._segment}") from error

    def close(self) -> None:
        """See ``device.Binding``. It lets go of the request and the network."""
        self._request = self._compiled = None
        self._addresses.clear()


class OpenVinoEngine:
    """See ``device.Engine``: one network, compiled anew for each set of shapes that is bound.

    With fixed shapes OpenVINO fuses more, and is right: compiled for any batch in bfloat16 it has
    answered wrongly (2026.4.1). Each costs as much memory as the weights, for its kernels read them
    in an order of their own, and lives as long as a binding does; the one for the shapes ``first``
    is made at load and stays. Requests of one compiled network wait for each other: slots whose
    threads have cores of their own get networks of their own, the others share.

    Owns: the network with its weights as the file has them, and what is compiled of it.
    """

    def __init__(
        self, network: Any, segment: Segment, first: Shapes, *, precision: str, threads: int
    ) -> None:
        self.inputs, self.outputs = segment.inputs, segment.outputs
        self._name, self._network = segment.name, network
        self._precision, self._threads = precision, threads
        self._apart = 2 * threads <= usable_cores()
        self._lock = threading.Lock()
        self._compiled: WeakValueDictionary[Any, Any] = WeakValueDictionary()
        self._first = self._compiled_for(first, slot=0)  # what cannot be compiled fails at load

    def bind(self, tensors: Mapping[str, Tensor], slot: int) -> OpenVinoBinding:
        """See ``device.Engine``. Shapes that nobody has bound cost a compilation.

        Measured on 2 cores for ParNet-S at 224: 0.2 s in float32, some seconds in INT8.

        Raises:
            EngineLoadError: The network cannot be compiled for these shapes.
            OutOfMemoryError: There is not enough memory for it.
        """
        shapes = {name: tensors[name].shape for name in self.inputs}
        try:
            return OpenVinoBinding(self._compiled_for(shapes, slot), self._name, tensors)
        except CAUGHT as error:
            raise run_error(error, f"segment {self._name}") from error

    def enqueue(self, binding: OpenVinoBinding, stream: HostStream) -> None:
        """See ``device.Engine``."""
        stream.submit(binding.run, self._name)

    def close(self) -> None:
        """See ``device.Engine``."""
        self._first = self._network = None

    def _compiled_for(self, shapes: Shapes, slot: int) -> Any:
        key = (tuple(shapes.items()), slot if self._apart else 0)
        with self._lock:
            compiled = self._compiled.get(key)
            if compiled is None:
                compiled = self._compiled[key] = compile_network(
                    self._network, shapes, precision=self._precision, threads=self._threads
                )
            return compiled


class OpenVinoBackend(HostBackend):
    """See ``host_backend.HostBackend``."""

    name = "openvino"

    def open_engine(
        self, file: EngineFile, segment: Segment, spec: ModelSpec, plan: Plan, threads: int
    ) -> OpenVinoEngine:
        """See ``host_backend.HostBackend``."""
        network = read_network(file)
        check_network(network, segment, spec, plan)
        size, tensors = plan.input_size.low, spec.tensors
        first = {name: (1, *tensors[name].shape(*size)) for name in segment.inputs}
        return OpenVinoEngine(network, segment, first, precision=plan.precision, threads=threads)

    def facts(self, plan: Plan) -> Mapping[str, Any]:
        """See ``host_backend.HostBackend``."""
        return {"openvino": ov.__version__}


def _tensor_at(address: int, shape: tuple[int, ...]) -> Any:
    """Memory of somebody else as a float32 tensor."""
    memory = (ctypes.c_float * prod(shape)).from_address(address)
    return ov.Tensor(np.ctypeslib.as_array(memory).reshape(shape), shared_memory=True)
