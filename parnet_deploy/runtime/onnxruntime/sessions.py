"""What the backends on ONNX Runtime share: its errors in our words, bindings, the session check."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as state

from ...errors import (
    BackendError,
    DeviceLostError,
    EngineLoadError,
    ExecutionError,
    OutOfMemoryError,
)
from ...placement import Segment
from ...plan import Plan
from ...spec import ModelSpec
from ..device import Tensor

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
    (OSError, EngineLoadError, ExecutionError),  # of the engine's file, which is read here
)
"""The one place where ONNX Runtime's exceptions become ours; the first row that fits counts."""

CAUGHT = tuple(row[0] for row in ERRORS)
"""What ONNX Runtime raises."""

TEXTS: tuple[tuple[re.Pattern[str], type[BackendError]], ...] = (
    # what a message says, ours; ONNX Runtime has no type of its own for it
    (re.compile(r"Failed to allocate memory for requested buffer"), OutOfMemoryError),
    (
        re.compile(r"\b(CUDA failure 2:|CUDNN_STATUS_ALLOC_FAILED|CUBLAS_STATUS_ALLOC_FAILED)"),
        OutOfMemoryError,
    ),
    (re.compile(r"\bCUDA failure (214|220|700|702|709|710|71[4-9]|999):"), DeviceLostError),
)
"""Failures of a GPU that have to be told apart: the first row whose text is found, before ERRORS.

The numbers are cudaError_t: 2 out of memory, the others leave a context that is of no use any more.
"""

_ERROR_LEVEL = 3


def load_error(error: Exception, what: str) -> BackendError:
    """Ours for an exception while a session is made."""
    return _kind(error, 1)(f"{what}: ONNX Runtime cannot load it: {first_line(error)}")


def run_error(error: Exception, what: str) -> BackendError:
    """Ours for an exception while a session runs."""
    return _kind(error, 2)(f"{what}: ONNX Runtime: {first_line(error)}")


def session_options(threads: int, *, emulate: bool = False) -> Any:
    """All graph optimisations, or none to ``emulate``, and a thread pool that never spins.

    A graph that keeps its weights in other files is refused: nobody has checked those.
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
    options.add_session_config_entry(
        "session.model_external_initializers_file_folder_path", os.devnull
    )
    return options


def release_model(session: Any) -> Any:
    """The session, without the serialized model, which it would keep for as long as it lives.

    It keeps it to start anew with other providers, which nobody here asks for.
    """
    session._model_bytes = None
    return session


class OrtBinding:
    """See ``device.Binding``. ``run`` is one inference on the bound memory.

    ``where`` is ONNX Runtime's name and ordinal of the device that has the memory.
    """

    def __init__(
        self,
        session: Any,
        name: str,
        inputs: tuple[str, ...],
        where: tuple[str, int] = ("cpu", 0),
        run_options: Any = None,
    ) -> None:
        self._session: Any = session
        self._name, self._inputs = name, inputs
        self._where, self._run_options = where, run_options
        self._binding: Any = session.io_binding()
        self._bound: dict[str, tuple[tuple[int, ...], int]] = {}

    def bind_all(self, tensors: Mapping[str, Tensor]) -> None:
        """Bind every tensor to its buffer."""
        for name, tensor in tensors.items():
            self.bind(name, tensor.shape, tensor.buffer.address)

    def bind(self, name: str, shape: tuple[int, ...], address: int) -> None:
        """Let a tensor stand at this address, from the next run on. Address 0: not known yet."""
        self._bound[name] = (shape, address)
        if address:
            to = self._binding.bind_input if name in self._inputs else self._binding.bind_output
            to(name, *self._where, np.float32, shape, address)

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
            DeviceLostError: The GPU is of no use any more.
        """
        try:
            self._session.run_with_iobinding(self._binding, self._run_options)
        except CAUGHT as error:
            raise run_error(error, f"segment {self._name}") from error

    def close(self) -> None:
        """See ``device.Binding``. It lets go of the session."""
        if self._binding is not None:
            self._binding.clear_binding_inputs()
            self._binding.clear_binding_outputs()
            self._binding = self._session = None


def check_session(session: Any, segment: Segment, spec: ModelSpec, plan: Plan) -> None:
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


def first_line(error: Exception) -> str:
    """What the message says first, or the name of the exception."""
    return str(error).strip().partition("\n")[0] or type(error).__name__


def _kind(error: Exception, column: int) -> type[BackendError]:
    for text, ours in TEXTS:
        if text.search(str(error)):
            return ours
    row = next(row for row in ERRORS if isinstance(error, row[0]))
    return row[1] if column == 1 else row[2]
