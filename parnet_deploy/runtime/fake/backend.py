"""The ``fake`` backend: engines on simulated devices, to see any placement run on any machine.

Engines compute for real (each segment's ONNX file through ONNX Runtime, or any function), so the
logits are true. Times are simulated: they follow from the made-up rates of ``FakeOptions`` and are
never a measurement.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from ...errors import BackendError, ExecutionError
from ...extras import import_for
from ...placement import Segment
from ...plan import Plan
from ...spec import ModelSpec
from ..backend import LoadedPlan
from ..device import Tensor
from ..engine_file import EngineFile
from .device import FakeDevice, FakeStream
from .memory import own_buffer
from .options import FakeOptions
from .simulator import Simulator, Work

Arrays = Mapping[str, NDArray[np.float32]]
Kernel = Callable[[Arrays], Arrays]
"""What an engine computes: from its inputs, by name, to its outputs, by name."""


class FakeBinding:
    """See ``device.Binding``."""

    def __init__(self, tensors: Mapping[str, Tensor], inputs: tuple[str, ...]) -> None:
        views = {name: own_buffer(tensor.buffer) for name, tensor in tensors.items()}
        self.reads = tuple(views[name].memory for name in inputs)
        self.writes = tuple(views[name].memory for name in views if name not in inputs)
        self.batch = next(iter(tensors.values())).shape[0]
        arrays = {name: views[name].view(tensor.shape) for name, tensor in tensors.items()}
        self.sources = {name: arrays[name] for name in inputs}
        self.targets = {name: arrays[name] for name in arrays if name not in inputs}

    def set_address(self, name: str, address: int) -> None:
        """A simulated device cannot read the caller's memory."""
        raise BackendError(f"tensor {name}: a fake device copies it, it cannot be bound in place.")

    def close(self) -> None:
        """Nothing to free."""


class FakeEngine:
    """See ``device.Engine``. ``macs`` is the cost of one image of the largest size."""

    def __init__(self, segment: Segment, kernel: Kernel, macs: int, device: FakeDevice) -> None:
        self.inputs, self.outputs = segment.inputs, segment.outputs
        self._segment, self._kernel, self._macs, self._device = segment, kernel, macs, device

    def bind(self, tensors: Mapping[str, Tensor], slot: int) -> FakeBinding:
        """See ``device.Engine``."""
        return FakeBinding(tensors, self.inputs)

    def enqueue(self, binding: FakeBinding, stream: FakeStream) -> None:
        """See ``device.Engine``."""
        options, name = self._device.options, self._segment.name
        stream.put(
            Work(
                op="run",
                name=name,
                duration_us=options.launch_us + self._macs * binding.batch / options.macs_per_us,
                reads=binding.reads,
                writes=binding.writes,
                start=lambda: self._compute(binding),
                engine_device=options.faults.misplaced.get(name),
            )
        )

    def close(self) -> None:
        """Nothing to free."""

    def _compute(self, binding: FakeBinding) -> Callable[[], None]:
        faults, name = self._device.options.faults, self._segment.name
        results = {key: np.array(value) for key, value in self._kernel(binding.sources).items()}
        for target, array in binding.targets.items():
            if target not in results or results[target].shape != array.shape:
                raise ExecutionError(f"segment {name}: no {target} of shape {array.shape}.")

        def write() -> None:
            for target, array in binding.targets.items():
                array[...] = results[target] + np.float32(name in faults.write_wrong)
                if name in faults.write_nan:
                    array[...] = np.nan

        return write


class FakeBackend:
    """See ``backend.Backend``. ``kernels`` replaces what the engines compute."""

    name = "fake"

    def __init__(
        self,
        options: FakeOptions | None = None,
        kernels: Callable[[Segment], Kernel] | None = None,
    ) -> None:
        self._options = options or FakeOptions()
        self._kernels = kernels

    def load(
        self,
        spec: ModelSpec,
        plan: Plan,
        files: Mapping[str, EngineFile],
        threads: int | None = None,
        *,
        trace: bool = False,
    ) -> LoadedPlan:
        """See ``backend.Backend``."""
        options = self._options
        simulator = Simulator(seed=options.seed, jitter_us=options.jitter_us, faults=options.faults)
        ordinals = plan.placement.devices
        devices = {ordinal: FakeDevice(ordinal, simulator, options) for ordinal in ordinals}
        macs = spec.macs(*plan.input_size.high)
        engines = {}
        for segment in plan.placement.segments:
            kernel = self._kernels(segment) if self._kernels else OnnxKernel(files[segment.name])
            cost = sum(macs[part] for part in segment.parts)
            engines[segment.name] = FakeEngine(segment, kernel, cost, devices[segment.device])
        facts = {"devices": len(devices), "times": "simulated, from made-up rates"}
        return LoadedPlan(devices=devices, engines=engines, facts=facts)


class OnnxKernel:
    """A segment's real ONNX file, run by ONNX Runtime with one thread."""

    def __init__(self, file: EngineFile) -> None:
        module = import_for("parnet_deploy.runtime.onnxruntime.cpu", "cpu")
        self._session = module.open_session(file, threads=1)
        self._outputs = [output.name for output in self._session.get_outputs()]

    def __call__(self, inputs: Arrays) -> Arrays:
        """Compute the outputs."""
        results = self._session.run(self._outputs, dict(inputs))
        return dict(zip(self._outputs, results, strict=True))
