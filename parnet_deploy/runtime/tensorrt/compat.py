"""What differs between TensorRT 8.6, 10 and 11 when an engine runs, found by its features.

Elsewhere only what these versions share is called: ``execute_async_v3``, tensors by name. What
building needs is in ``builder.tensorrt.config``, the log in ``log``. Importing this module imports
no TensorRT. Every function that makes or uses a TensorRT object, and whatever destroys one, runs
with the primary context of its device current.

The names are checked against the bindings of 8.6, 10.16 and 11.4 (tests/runtime/test_trt_api.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from ...errors import (
    BackendError,
    DeviceUnavailableError,
    EngineLoadError,
    MissingExtraError,
)
from ...machine.gpus import probe_gpus
from .log import failure, log_position, make_logger

MODULES = ("tensorrt", "tensorrt_bindings")
DTYPES = {
    "FLOAT": "float32",
    "HALF": "float16",
    "BF16": "bfloat16",
    "FP8": "float8_e4m3",
    "FP4": "float4_e2m1",
    "E8M0": "float8_e8m0",
    "INT4": "int4",
    "INT8": "int8",
    "UINT8": "uint8",
    "INT32": "int32",
    "INT64": "int64",
    "BOOL": "bool",
}
"""TensorRT's names of data types and numpy's."""


@dataclass(frozen=True, kw_only=True)
class IoTensor:
    """An input or output of an engine. ``profiles`` holds (least, usual, greatest) per profile."""

    name: str
    is_input: bool
    dtype: str
    shape: tuple[int, ...]
    profiles: tuple[tuple[tuple[int, ...], ...], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "name": self.name,
            "is_input": self.is_input,
            "dtype": self.dtype,
            "shape": list(self.shape),
            "profiles": [[list(shape) for shape in profile] for profile in self.profiles],
        }


def load_tensorrt() -> Any:
    """The module ``tensorrt``, once it is known that the driver works.

    8.6 ends the process with a segmentation fault where a Runtime is made without a driver.

    Raises:
        MissingExtraError: TensorRT is not installed.
        BackendError: It is, but its libraries cannot be loaded.
        DeviceUnavailableError: There is no usable GPU or driver.
    """
    trt = _import_tensorrt()
    count, why = probe_gpus()
    if not count:
        raise DeviceUnavailableError(
            f"TensorRT {trt.__version__}: got no usable GPU ({why}), expected one. "
            "Install NVIDIA's driver, and in a container start it with --gpus all."
        )
    return trt


def _import_tensorrt() -> Any:
    for name in MODULES:
        try:
            return import_module(name)
        except ModuleNotFoundError as error:
            if error.name not in MODULES:
                raise
        except ImportError as error:
            raise BackendError(
                f"package {name}: got {error}, expected libraries that can be loaded. "
                "Run: pip install --force-reinstall 'parnet-deploy[gpu]'."
            ) from error
    raise MissingExtraError("tensorrt", "gpu")


def major_version(trt: Any) -> int:
    """8, 10 or 11."""
    return int(trt.__version__.partition(".")[0])


def make_runtime(trt: Any) -> Any:
    """A Runtime with the process's logger.

    Raises:
        EngineLoadError: It does not start.
    """
    return start(trt, "Runtime", EngineLoadError)


def start(trt: Any, kind: str, error_kind: type[BackendError]) -> Any:
    """A Runtime or Builder, or an error of this kind that quotes the log."""
    since = log_position()
    try:
        return getattr(trt, kind)(make_logger(trt))
    except TypeError as error:  # how the bindings report that the library returned nothing
        what = f"TensorRT {trt.__version__} {kind}: got nothing, expected one that starts"
        raise failure(error_kind, what, "Run: parnet-deploy doctor.", since=since) from error


def load_engine(trt: Any, runtime: Any, plan: bytes, *, name: str) -> Any:
    """Deserialize a plan. The caller has compared version, GPU and sha256 before.

    Raises:
        EngineLoadError: TensorRT refuses it.
        OutOfMemoryError: The GPU has too little memory.
    """
    since = log_position()
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        what = (
            f"engine {name}: got a plan that TensorRT {trt.__version__} refuses, expected its own"
        )
        raise failure(EngineLoadError, what, "Run: parnet-deploy build.", since=since)
    return engine


def io_tensors(trt: Any, engine: Any) -> tuple[IoTensor, ...]:
    """Inputs and outputs in the engine's order."""
    found = []
    for index in range(engine.num_io_tensors):
        name = engine.get_tensor_name(index)
        is_input = engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT
        profiles = range(engine.num_optimization_profiles if is_input else 0)
        found.append(
            IoTensor(
                name=name,
                is_input=is_input,
                dtype=dtype_name(engine.get_tensor_dtype(name)),
                shape=_ints(engine.get_tensor_shape(name)),
                profiles=tuple(
                    tuple(_ints(shape) for shape in engine.get_tensor_profile_shape(name, profile))
                    for profile in profiles
                ),
            )
        )
    return tuple(found)


def dtype_name(dtype: Any) -> str:
    """Numpy's name of a TensorRT data type."""
    name = str(dtype.name)
    return DTYPES.get(name, name.lower())


def _ints(shape: Sequence[Any]) -> tuple[int, ...]:
    return tuple(int(size) for size in shape)


def scratch_bytes(engine: Any) -> int:
    """Device memory that one execution context needs while it runs, over all profiles."""
    size = getattr(engine, "device_memory_size_v2", None)
    return int(engine.device_memory_size if size is None else size)


def make_context(trt: Any, engine: Any, *, own_scratch: bool = False, name: str = "") -> Any:
    """An execution context that emits no profiler ranges (plans are built with details).

    Args:
        trt: The module.
        engine: What to execute.
        own_scratch: TensorRT allocates the scratch memory. Otherwise the caller gives
            ``scratch_bytes`` of it by ``set_scratch`` before the first enqueue.
        name: For the error text.

    Raises:
        OutOfMemoryError: The GPU has too little memory.
        EngineLoadError: TensorRT gives no context for another reason.
    """
    since = log_position()
    if own_scratch:
        context = engine.create_execution_context()
    elif hasattr(trt, "ExecutionContextAllocationStrategy"):
        strategy = trt.ExecutionContextAllocationStrategy.USER_MANAGED
        context = engine.create_execution_context(strategy)
    else:
        context = engine.create_execution_context_without_device_memory()
    if context is None:
        what = f"engine {name}: got no execution context, expected one"
        raise failure(EngineLoadError, what, "Run: parnet-deploy doctor.", since=since)
    context.nvtx_verbosity = trt.ProfilingVerbosity.NONE
    return context


def set_scratch(context: Any, address: int, nbytes: int) -> None:
    """Give a context its scratch memory, 256-byte aligned.

    Owns: the caller keeps it while the context is used; contexts that may run at the same time
    never share it.
    """
    if hasattr(context, "set_device_memory"):
        context.set_device_memory(address, nbytes)
    else:
        context.device_memory = address


def set_profile(context: Any, index: int, stream_handle: int) -> None:
    """Select an optimisation profile; all input shapes must be set again after it.

    Work of ``stream_handle`` so far, and this, come before what uses the profile.

    Raises:
        EngineLoadError: No such profile, or on 8.6 another context uses it.
    """
    since = log_position()
    if not context.set_optimization_profile_async(index, stream_handle):
        what = f"optimisation profile {index}: got a refusal, expected it to be set"
        raise failure(EngineLoadError, what, "Run: parnet-deploy build.", since=since)
