"""The ``tensorrt`` backend: segments as TensorRT engines, each pinned to its GPU.

Every TensorRT object is made, used and destroyed with the primary context of its device current;
the caller's context is never changed. Nothing is built here. An engine is shared by all in-flight
slots; each binding has an execution context of its own, so a captured graph stays valid while other
shapes run. Contexts of one slot never run at the same time and share scratch memory.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

from ...errors import BackendError, EngineLoadError, ExecutionError
from ...placement import Segment
from ...plan import Plan
from ...spec import ModelSpec
from ..backend import LoadedPlan
from ..cuda.device import CudaDevice, CudaStream, open_devices
from ..device import Buffer, Tensor
from ..engine_file import EngineFile
from .compat import (
    IoTensor,
    io_tensors,
    load_engine,
    load_tensorrt,
    make_context,
    make_runtime,
    scratch_bytes,
    set_profile,
    set_scratch,
)
from .log import failure, log_position
from .plan_fit import check_engines, check_same_kind

_REBUILD = "Run: parnet-deploy build."


class TensorRtBinding:
    """See ``device.Binding``: an execution context with its profile, shapes and addresses set.

    Owns: the context. Borrows: scratch memory of the engine.
    """

    def __init__(self, context: Any, device: CudaDevice, name: str) -> None:
        self.context: Any = context
        self._device, self._name = device, name

    def set_address(self, name: str, address: int) -> None:
        """A graph holds the addresses; a GPU copies what the caller has."""
        raise BackendError(
            f"engine {self._name}, tensor {name}: its address cannot change, for a captured graph "
            "may hold it."
        )

    def close(self) -> None:
        """See ``device.Binding``."""
        if self.context is not None:
            with self._device.current():
                self.context = None


class TensorRtEngine:
    """See ``device.Engine``.

    Owns: the engine, and scratch memory for each slot.
    """

    def __init__(
        self, *, trt: Any, runtime: Any, engine: Any, segment: Segment, device: CudaDevice
    ) -> None:
        self.inputs, self.outputs = segment.inputs, segment.outputs
        self._trt, self._runtime, self._engine = trt, runtime, engine
        self._name, self._device = segment.name, device
        self.tensors = {tensor.name: tensor for tensor in io_tensors(trt, engine)}
        self._scratch_bytes = scratch_bytes(engine)
        self._scratch: dict[int, Buffer] = {}
        self._setup: CudaStream | None = None  # profiles are set in a stream
        self._binding = threading.Lock()  # an engine makes one context at a time

    def bind(self, tensors: Mapping[str, Tensor], slot: int) -> TensorRtBinding:
        """See ``device.Engine``.

        Raises:
            ExecutionError: TensorRT refuses the shapes or the addresses.
            OutOfMemoryError: The scratch memory of another slot does not fit.
        """
        # No name but the binding's holds the context: a traceback would keep it beyond its device.
        with self._binding, self._device.current(), ExitStack() as undo:
            scratch = self._slot_scratch(slot)
            binding = TensorRtBinding(
                make_context(self._trt, self._engine, name=self._name), self._device, self._name
            )
            undo.callback(binding.close)
            if scratch is not None:
                set_scratch(binding.context, scratch.address, scratch.nbytes)
            self._set_profile(binding, tensors)
            self._set_tensors(binding, tensors)
            undo.pop_all()
        return binding

    def enqueue(self, binding: TensorRtBinding, stream: CudaStream) -> None:
        """See ``device.Engine``.

        Raises:
            ExecutionError: TensorRT did not take the work.
        """
        with self._device.current(), stream.traced("run", self._name):
            since = log_position()
            if not binding.context.execute_async_v3(stream.handle):
                stream.check()  # a lost device says so here
                what = f"segment {self._name}: got a refusal, expected TensorRT to enqueue it"
                raise failure(ExecutionError, what, "Try again.", since=since)

    def close(self) -> None:
        """See ``device.Engine``."""
        if self._engine is not None:
            with self._device.current():
                self._engine = None
                self._runtime = None  # a runtime outlives its engines
        for buffer in self._scratch.values():
            buffer.close()
        self._scratch.clear()
        if self._setup is not None:
            self._setup.close()

    def _slot_scratch(self, slot: int) -> Buffer | None:
        if slot not in self._scratch and self._scratch_bytes:
            self._scratch[slot] = self._device.allocate(self._scratch_bytes)
        return self._scratch.get(slot)

    def _set_profile(self, binding: TensorRtBinding, tensors: Mapping[str, Tensor]) -> None:
        """Select the narrowest profile that has these shapes, and wait until it is in force."""
        count = len(self.tensors[self.inputs[0]].profiles)
        fitting = [index for index in range(count) if self._profile_has(index, tensors)]
        if not fitting:
            shapes = {name: tensors[name].shape for name in self.inputs}
            raise ExecutionError(
                f"segment {self._name}: got shapes {shapes}, expected what the engine was built "
                f"for. {_REBUILD}"
            )
        if self._setup is None:
            self._setup = self._device.create_stream(0)
        set_profile(binding.context, fitting[0], self._setup.handle)
        self._setup.synchronize()

    def _profile_has(self, index: int, tensors: Mapping[str, Tensor]) -> bool:
        for name in self.inputs:
            least, _, greatest = self.tensors[name].profiles[index]
            shape = tensors[name].shape
            if len(shape) != len(least):
                return False
            if not all(a <= b <= c for a, b, c in zip(least, shape, greatest, strict=True)):
                return False
        return True

    def _set_tensors(self, binding: TensorRtBinding, tensors: Mapping[str, Tensor]) -> None:
        since = log_position()
        done = all(
            binding.context.set_input_shape(name, tensors[name].shape) for name in self.inputs
        )
        done = done and all(
            binding.context.set_tensor_address(name, tensors[name].buffer.address)
            for name in (*self.inputs, *self.outputs)
        )
        missing = list(binding.context.infer_shapes()) if done else []
        if not done or missing:
            what = f"segment {self._name}: got a refusal of {missing or 'shapes or addresses'}"
            raise failure(ExecutionError, f"{what}, expected them to fit", _REBUILD, since=since)
        for name in self.outputs:
            shape = tuple(binding.context.get_tensor_shape(name))
            if shape != tensors[name].shape:
                raise ExecutionError(
                    f"segment {self._name}, tensor {name}: got shape {shape} from the engine, "
                    f"expected {tensors[name].shape}. {_REBUILD}"
                )


class TensorRtBackend:
    """See ``backend.Backend``."""

    name = "tensorrt"

    def load(
        self,
        spec: ModelSpec,
        plan: Plan,
        files: Mapping[str, EngineFile],
        threads: int | None = None,
        *,
        trace: bool = False,
    ) -> LoadedPlan:
        """See ``backend.Backend``. ``threads`` means nothing here."""
        trt = load_tensorrt()
        with ExitStack() as undo:
            devices = open_devices(plan.placement.devices, trace=trace)
            for device in devices.values():
                undo.callback(device.close)
            about = {ordinal: device.facts() for ordinal, device in devices.items()}
            check_same_kind(about)
            check_engines(plan, trt.__version__, about)
            engines = {}
            for segment in plan.placement.segments:
                device = devices[segment.device]
                engine = _load(trt, files[segment.name], segment, device)
                undo.callback(engine.close)
                _check_tensors(engine.tensors, segment, spec, plan)
                engines[segment.name] = engine
            undo.pop_all()
        facts = {"tensorrt": trt.__version__, "devices": about}
        return LoadedPlan(devices=devices, engines=engines, facts=facts)


def _load(trt: Any, file: EngineFile, segment: Segment, device: CudaDevice) -> TensorRtEngine:
    """One engine on its device.

    Raises:
        EngineLoadError: TensorRT refuses the plan.
        OutOfMemoryError: Its weights do not fit.
    """
    with device.current():
        return TensorRtEngine(
            trt=trt,
            runtime=(runtime := make_runtime(trt)),
            engine=load_engine(trt, runtime, file.read_bytes(), name=f"{file}"),
            segment=segment,
            device=device,
        )


def _check_tensors(
    tensors: Mapping[str, IoTensor], segment: Segment, spec: ModelSpec, plan: Plan
) -> None:
    """Refuse a plan that is not this segment: names, data types and shapes.

    Raises:
        EngineLoadError: With what differs.
    """
    where = f"engine of segment {segment.name}"
    reads = {name for name, tensor in tensors.items() if tensor.is_input}
    writes = set(tensors) - reads
    if reads != set(segment.inputs) or writes != set(segment.outputs):
        raise EngineLoadError(
            f"{where}: got {sorted(reads)} -> {sorted(writes)}, expected "
            f"{sorted(segment.inputs)} -> {sorted(segment.outputs)}. {_REBUILD}"
        )
    for name, tensor in tensors.items():
        expected = (plan.max_batch, *spec.tensors[name].shape(*plan.input_size.high))
        fixed = [(a, b) for a, b in zip(tensor.shape, expected, strict=False) if a >= 0]
        same = len(tensor.shape) == len(expected) and all(a == b for a, b in fixed)
        if tensor.dtype != "float32" or not same:
            raise EngineLoadError(
                f"{where}, tensor {name}: got {tensor.dtype} {list(tensor.shape)}, "
                f"expected float32 {list(expected)}. {_REBUILD}"
            )
