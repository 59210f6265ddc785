"""The ``onnxruntime`` backend: segments as ONNX Runtime sessions on the CPU.

Sessions read and write preallocated memory (IOBinding by pointer): nothing is copied between
segments. Thread pools do not spin, so that sessions that run at the same time, and the rest of the
process, keep their cores.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as state

from ..errors import (
    BackendError,
    DeviceUnavailableError,
    EngineLoadError,
    ExecutionError,
    OutOfMemoryError,
)
from ..placement import Segment
from ..plan import Plan
from ..spec import ModelSpec
from .backend import LoadedPlan
from .cores import share_cores, usable_cores
from .device import Tensor
from .host import HostDevice, HostStream

ERRORS: tuple[tuple[type[Exception], type[BackendError], type[BackendError]], ...] = (
    # what ONNX Runtime raises, ours when loading, ours when running
    (MemoryError, OutOfMemoryError, OutOfMemoryError),
    (state.Fail, EngineLoadError, ExecutionError),
    (state.InvalidArgument, EngineLoadError, ExecutionError),
    (state.InvalidGraph, EngineLoadError, ExecutionError),
    (state.InvalidProtobuf, EngineLoadError, ExecutionError),
    (state.NoModel, EngineLoadError, ExecutionError),
    (state.NoSuchFile, EngineLoadError, ExecutionError),
    (state.NotImplemented, EngineLoadError, ExecutionError),
    (state.EPFail, EngineLoadError, ExecutionError),
    (state.EngineError, EngineLoadError, ExecutionError),
    (state.RuntimeException, EngineLoadError, ExecutionError),
    (RuntimeError, EngineLoadError, ExecutionError),
    (ValueError, EngineLoadError, ExecutionError),
)
"""The one place where ONNX Runtime's exceptions become ours; the first row that fits counts."""

_CAUGHT = tuple(row[0] for row in ERRORS)
_ERROR_LEVEL = 3


def run_once(model: bytes, feeds: Mapping[str, NDArray[np.float32]]) -> dict[str, Any]:
    """Run a serialized ONNX model one time; every output by its name. For proofs, not for speed.

    Raises:
        EngineLoadError: It is not an ONNX model that ONNX Runtime can run.
    """
    session = open_session(model, threads=usable_cores())
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(feeds)), strict=True))


def open_session(model: Path | bytes, *, threads: int, emulate: bool = False) -> Any:
    """An ``InferenceSession`` on the CPU with all graph optimisations and a pool that never spins.

    ``emulate`` turns the optimisations off: every node of a quantized graph is then computed as it
    is written, rounding and clipping included, but the sums in float32, where nothing overflows.

    Raises:
        EngineLoadError: The file is not an ONNX model that ONNX Runtime can run.
        OutOfMemoryError: The model does not fit into memory.
    """
    options = ort.SessionOptions()
    levels = ort.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_DISABLE_ALL if emulate else levels.ORT_ENABLE_ALL
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _ERROR_LEVEL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    try:
        source = model if isinstance(model, bytes) else str(model)
        return ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except _CAUGHT as error:
        ours = next(row[1] for row in ERRORS if isinstance(error, row[0]))
        what = "engine" if isinstance(model, bytes) else f"engine {model}"
        raise ours(f"{what}: ONNX Runtime cannot load it: {_first_line(error)}") from error


class OrtBinding:
    """See ``device.Binding``. ``run`` is one inference into the bound memory."""

    def __init__(self, session: Any, name: str, inputs: tuple[str, ...]) -> None:
        self._session, self._name, self._inputs = session, name, inputs
        self._binding = session.io_binding()
        self._bound: dict[str, tuple[tuple[int, ...], int]] = {}

    def bind(self, name: str, shape: tuple[int, ...], address: int) -> None:
        """Let a tensor stand at this address, from the next run on. Address 0: not known yet."""
        self._bound[name] = (shape, address)
        if address:
            to = self._binding.bind_input if name in self._inputs else self._binding.bind_output
            to(name, "cpu", 0, np.float32, shape, address)

    def set_address(self, name: str, address: int) -> None:
        """See ``device.Binding``."""
        shape, now = self._bound[name]
        if address != now:
            self.bind(name, shape, address)

    def run(self) -> None:
        """Run the session.

        Raises:
            ExecutionError: ONNX Runtime reported a failure.
            OutOfMemoryError: Working memory could not be allocated.
        """
        try:
            self._session.run_with_iobinding(self._binding)
        except _CAUGHT as error:
            ours = next(row[2] for row in ERRORS if isinstance(error, row[0]))
            raise ours(f"segment {self._name}: ONNX Runtime: {_first_line(error)}") from error

    def close(self) -> None:
        """See ``device.Binding``."""
        self._binding.clear_binding_inputs()
        self._binding.clear_binding_outputs()


class OrtEngine:
    """See ``device.Engine``: one session.

    Owns: the session, and with it the weights and a thread pool.
    """

    def __init__(self, segment: Segment, session: Any) -> None:
        self.inputs, self.outputs = segment.inputs, segment.outputs
        self._name = segment.name
        self._session = session

    def bind(self, tensors: Mapping[str, Tensor], slot: int) -> OrtBinding:
        """See ``device.Engine``."""
        binding = OrtBinding(self._session, self._name, self.inputs)
        for name, tensor in tensors.items():
            binding.bind(name, tensor.shape, tensor.buffer.address)
        return binding

    def enqueue(self, binding: OrtBinding, stream: HostStream) -> None:
        """See ``device.Engine``."""
        stream.submit(binding.run, self._name)

    def close(self) -> None:
        """See ``device.Engine``."""
        self._session = None


class OnnxRuntimeBackend:
    """See ``backend.Backend``."""

    name = "onnxruntime"

    def load(
        self,
        spec: ModelSpec,
        plan: Plan,
        files: Mapping[str, Path],
        threads: int | None = None,
        *,
        trace: bool = False,
    ) -> LoadedPlan:
        """See ``backend.Backend``."""
        if plan.placement.devices != (0,):
            raise DeviceUnavailableError(
                f"placement {plan.placement.name}: got devices {plan.placement.devices}, "
                "expected 0, for the CPU is one device. Run: parnet-deploy build --backend "
                "onnxruntime without --gpus."
            )
        cores = threads or plan.threads or usable_cores()
        shares = share_cores(plan.placement, cores)
        engines = {}
        for segment in plan.placement.segments:
            session = open_session(files[segment.name], threads=shares[segment.name])
            _check_session(session, segment, spec, plan)
            engines[segment.name] = OrtEngine(segment, session)
        facts = {"onnxruntime": ort.__version__, "cores": cores, "threads": shares}
        return LoadedPlan(devices={0: HostDevice(trace=trace)}, engines=engines, facts=facts)


def _check_session(session: Any, segment: Segment, spec: ModelSpec, plan: Plan) -> None:
    """Refuse a file that is not this segment: names, dtypes and shapes of what it reads and writes.

    Raises:
        EngineLoadError: With what differs.
    """
    inputs = {node.name: node for node in session.get_inputs()}
    outputs = {node.name: node for node in session.get_outputs()}
    if set(inputs) != set(segment.inputs) or not set(segment.outputs) <= set(outputs):
        raise EngineLoadError(
            f"engine of segment {segment.name}: got {sorted(inputs)} -> {sorted(outputs)}, "
            f"expected {sorted(segment.inputs)} -> {sorted(segment.outputs)}. "
            "Run: parnet-deploy build."
        )
    tensors = spec.tensors
    for name in (*segment.inputs, *segment.outputs):
        node = inputs.get(name) or outputs[name]
        for size in {plan.input_size.low, plan.input_size.high}:
            for batch in {1, plan.max_batch}:
                _check_node(node, (batch, *tensors[name].shape(*size)), segment)


def _check_node(node: Any, shape: tuple[int, ...], segment: Segment) -> None:
    fixed = [
        (got, want) for got, want in zip(node.shape, shape, strict=False) if isinstance(got, int)
    ]
    same = len(node.shape) == len(shape) and all(got == want for got, want in fixed)
    if node.type != "tensor(float)" or not same:
        raise EngineLoadError(
            f"engine of segment {segment.name}, tensor {node.name}: got {node.type} {node.shape}, "
            f"expected tensor(float) {list(shape)}. Run: parnet-deploy build."
        )


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
