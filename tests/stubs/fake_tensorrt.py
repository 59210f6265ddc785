"""A TensorRT for tests: its Python API as of 8.6, 10.16 or 11.4, with ONNX Runtime underneath.

``fake_tensorrt("10.16")`` gives a module object. It has what the real module of that version has
and nothing that it lacks (tests/runtime/test_trt_api.py compares with the real bindings). The
parser reads ONNX, a plan carries the graph, and a context really computes on the addresses that
were set. ``module._control`` holds the faults to inject, the GPU to be, and ``launch``, the way in
which work gets into a cuda_stream.

Contexts check what real ones check: addresses, shapes within the profile, scratch memory, one
enqueue at a time.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import math
import os
import signal
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto

from tests.stubs.fake_tensorrt_enums import enums_of, shared

VERSIONS = {"8.6": "8.6.1", "10.16": "10.16.1.11", "11.4": "11.4.0.106"}
ALL = (8, 10, 11)
MAGIC = b"FAKEPLAN"
TYPES = {
    TensorProto.FLOAT: "FLOAT",
    TensorProto.FLOAT16: "HALF",
    TensorProto.INT8: "INT8",
    TensorProto.INT32: "INT32",
    TensorProto.INT64: "INT64",
    TensorProto.BOOL: "BOOL",
    TensorProto.UINT8: "UINT8",
}
NUMPY = {"FLOAT": np.float32, "HALF": np.float16, "INT8": np.int8, "INT32": np.int32}
NUMPY |= {"INT64": np.int64, "BOOL": np.bool_, "UINT8": np.uint8}


@dataclass
class Faults:
    """What goes wrong; nothing by default."""

    parse_errors: list[tuple[str, int, str]] = field(default_factory=list)  # code, node, text
    build_says: str = ""  # an error in the log, and no plan
    build_kills: int = 0  # a signal that the process sends itself
    build_hangs: bool = False
    build_exits: int = 0
    ignore_precision: bool = False  # every layer comes out in float32
    opaque: bool = False  # all layers compiled into one
    warning: str = ""  # said by each build
    deserialize_says: str = ""  # an error in the log, and no engine
    no_context: str = ""
    enqueue_fails: bool = False
    wrong_values: bool = False  # outputs off by one
    starts: bool = True  # whether Builder and Runtime do


Launch = Callable[[int, Callable[[], None], Sequence[int]], None]
"""Puts work into a stream, by its handle; the addresses are of all memory that it touches."""


@dataclass
class Control:
    """What tests set on a fake module: faults, the GPU, and how work is launched.

    Where ``launch`` runs it later, maybe again and again (a graph), the stream orders it.
    """

    version: str
    faults: Faults = field(default_factory=Faults)
    device: str = "Fake GPU"
    capability: str = "9.0"
    launch: Launch = lambda stream, work, touches: work()
    built: int = 0
    measured: int = 0  # tactics that no timing cache knew

    @property
    def major(self) -> int:
        return int(self.version.partition(".")[0])


def fake_tensorrt(version: str = "10.16", faults: Faults | None = None, **control: Any) -> Any:
    """A module object with the API of one version."""
    full = VERSIONS[version]
    module: Any = ModuleType("tensorrt")
    module.__spec__ = ModuleSpec("tensorrt", None)
    module.__version__ = full
    module._control = Control(version=full, faults=faults or Faults(), **control)
    major = module._control.major
    for name, members in enums_of(major).items():
        setattr(module, name, members)
    for kind in CLASSES:
        members = {
            name: value
            for name, value in vars(kind).items()
            if major in _majors(value) and name not in ("__dict__", "__weakref__")
        }
        made = type(kind.__name__, kind.__bases__, {**members, "_trt": module})
        if major in _majors(kind):
            setattr(module, kind.__name__, made)
        setattr(module, f"_{kind.__name__}", made)
    severity = shared("Severity", "INTERNAL_ERROR ERROR WARNING INFO VERBOSE")
    module.ILogger.Severity = severity
    for member in severity:
        setattr(module.ILogger, member.name, member)
    return module


def only(*majors: int) -> Callable[[Any], Any]:
    """Mark a method, property getter or class as absent from other versions."""

    def mark(target: Any) -> Any:
        target._majors = majors
        return target

    return mark


def _majors(value: Any) -> Sequence[int]:
    value = value.fget if isinstance(value, property) else value
    return vars(value).get("_majors", ALL) if hasattr(value, "__dict__") else ALL


class Dims(tuple[int, ...]):
    pass


class IHostMemory(bytes):
    @property
    def nbytes(self) -> int:
        return len(self)


class ILogger:
    def __init__(self) -> None:
        self._made = True

    def log(self, severity: Any, msg: str) -> None:
        raise NotImplementedError


class _Logging:
    """What Builder and Runtime share: a logger that was really made, and a start that may fail."""

    _trt: Any

    def __init__(self, logger: Any) -> None:
        if not isinstance(logger, self._trt.ILogger) or not hasattr(logger, "_made"):
            raise TypeError("incompatible constructor arguments")
        if not self._trt._control.faults.starts:
            raise TypeError("pybind11::init(): factory function returned nullptr")
        self._logger = logger

    def _say(self, level: str, text: str) -> None:
        self._logger.log(self._trt.ILogger.Severity[level], text)


@only(10, 11)
class IProgressMonitor:
    def __init__(self) -> None:
        self._made = True

    def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None: ...

    def step_complete(self, phase_name: str, step: int) -> bool:
        return True

    def phase_finish(self, phase_name: str) -> None: ...


class ParserError:
    _trt: Any

    def __init__(self, code: str, node: int, text: str, graph: onnx.GraphProto) -> None:
        self._code, self._node, self._text = code, node, text
        self._proto = graph.node[node] if 0 <= node < len(graph.node) else onnx.NodeProto()

    def code(self) -> Any:
        return self._trt.ErrorCode[self._code]

    def node(self) -> int:
        return self._node

    def desc(self) -> str:
        return self._text

    @only(10, 11)
    def node_name(self) -> str:
        return self._proto.name

    @only(10, 11)
    def node_operator(self) -> str:
        return self._proto.op_type


class OnnxParser:
    _trt: Any

    def __init__(self, network: Any, logger: Any) -> None:
        self._network, self._logger, self._errors = network, logger, list[Any]()

    def parse(self, model: bytes, path: str | None = None) -> bool:
        proto = onnx.load_from_string(bytes(model))
        control = self._trt._control
        found = list(control.faults.parse_errors)
        if control.major == 8 and not self._network._flags & 1:
            found.append(("INVALID_VALUE", -1, "the network has an implicit batch dimension"))
        for index, node in enumerate(proto.graph.node):
            if not onnx.defs.has(node.op_type, node.domain):
                code = "UNSUPPORTED_NODE"
                found.append((code, index, f"No importer registered for op: {node.op_type}"))
        self._errors = [self._trt._ParserError(*error, proto.graph) for error in found]
        if not found:
            self._network._take(proto)
        return not found

    @property
    def num_errors(self) -> int:
        return len(self._errors)

    def get_error(self, index: int) -> Any:
        return self._errors[index]


class ILayer:
    def __init__(self, name: str) -> None:
        self._name, self._precision = name, None

    @property
    def name(self) -> str:
        return self._name

    @property
    @only(8, 10)
    def precision(self) -> Any:
        return self._precision

    @precision.setter
    def precision(self, value: Any) -> None:
        self._precision = value


class INetworkDefinition:
    _trt: Any

    def __init__(self, flags: int) -> None:
        self._flags = flags
        self._model: onnx.ModelProto | None = None
        self._layers: list[Any] = []

    def _take(self, model: onnx.ModelProto) -> None:
        self._model = model
        self._layers = [self._trt._ILayer(node.name) for node in model.graph.node]

    @property
    def num_layers(self) -> int:
        return len(self._layers)

    def get_layer(self, index: int) -> Any:
        return self._layers[index]


class IOptimizationProfile:
    def __init__(self) -> None:
        self._shapes: dict[str, Any] = {}

    def set_shape(self, input: str, min: Any, opt: Any, max: Any) -> None:
        self._shapes[input] = [list(min), list(opt), list(max)]


class ITimingCache:
    """Its bytes are JSON: what was measured, and for which version and GPU."""

    _trt: Any

    def __init__(self, data: bytes) -> None:
        control = self._trt._control
        empty = {"version": control.version, "device": control.device, "known": []}
        self._data: dict[str, Any] = json.loads(data) if data else empty

    def serialize(self) -> Any:
        return self._trt._IHostMemory(json.dumps(self._data).encode())

    def combine(self, input_cache: Any, ignore_mismatch: bool) -> bool:
        if input_cache._head() != self._head() and not ignore_mismatch:
            return False
        self._data["known"] = sorted({*self._data["known"], *input_cache._data["known"]})
        return True

    def _head(self) -> tuple[str, str]:
        return self._data["version"], self._data["device"]


class IBuilderConfig:
    """Settings, of the types that the real one takes."""

    _trt: Any

    def __init__(self) -> None:
        self._flags = {"TF32"}
        self._profiles: list[dict[str, Any]] = []
        self._previews: dict[str, bool] = {}
        self._pools: dict[str, int] = {}
        self._sources: int | None = None
        self._cache: Any = None
        self.builder_optimization_level = 3
        self.max_aux_streams = -1
        self.avg_timing_iterations = 1
        self.profiling_verbosity = self._trt.ProfilingVerbosity.LAYER_NAMES_ONLY
        self.hardware_compatibility_level = self._trt.HardwareCompatibilityLevel.NONE
        self._monitor: Any = None

    def set_flag(self, flag: Any) -> None:
        self._flags.add(self._trt.BuilderFlag(flag).name)

    def clear_flag(self, flag: Any) -> None:
        self._flags.discard(self._trt.BuilderFlag(flag).name)

    def get_flag(self, flag: Any) -> bool:
        return self._trt.BuilderFlag(flag).name in self._flags

    def set_preview_feature(self, feature: Any, enable: bool) -> None:
        self._previews[self._trt.PreviewFeature(feature).name] = enable

    def get_preview_feature(self, feature: Any) -> bool:
        return self._previews.get(feature.name, False)

    def set_memory_pool_limit(self, pool: Any, pool_size: int) -> None:
        self._pools[self._trt.MemoryPoolType(pool).name] = pool_size

    def set_tactic_sources(self, tactic_sources: int) -> bool:
        self._sources = tactic_sources
        return tactic_sources < 1 << len(self._trt.TacticSource.__members__)

    def add_optimization_profile(self, profile: Any) -> int:
        for least, usual, greatest in profile._shapes.values():
            if not all(a <= b <= c for a, b, c in zip(least, usual, greatest, strict=True)):
                return -1
        self._profiles.append(profile._shapes)
        return len(self._profiles) - 1

    def create_timing_cache(self, serialized_timing_cache: bytes) -> Any:
        try:
            return self._trt._ITimingCache(serialized_timing_cache)
        except ValueError:
            return None

    def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
        if cache._head() != self._trt._ITimingCache(b"")._head() and not ignore_mismatch:
            return False
        self._cache = cache
        return True

    def get_timing_cache(self) -> Any:
        return self._cache

    @property
    @only(10, 11)
    def progress_monitor(self) -> Any:
        return self._monitor

    @progress_monitor.setter
    def progress_monitor(self, monitor: Any) -> None:
        if not isinstance(monitor, self._trt.IProgressMonitor) or not hasattr(monitor, "_made"):
            raise TypeError("incompatible function arguments")
        self._monitor = monitor


class Builder(_Logging):
    def create_network(self, flags: int = 0) -> Any:
        if flags >= 1 << (1 + max(map(int, self._trt.NetworkDefinitionCreationFlag))):
            raise ValueError(f"unknown network flags {flags}")
        return self._trt._INetworkDefinition(flags)

    def create_builder_config(self) -> Any:
        return self._trt._IBuilderConfig()

    def create_optimization_profile(self) -> Any:
        return self._trt._IOptimizationProfile()

    def build_serialized_network(self, network: Any, config: Any) -> Any:
        control = self._trt._control
        faults = control.faults
        if faults.warning:
            self._say("WARNING", faults.warning)
        self._say("INFO", "Local timing cache in use.")
        problem = faults.build_says or self._problem(network, config)
        if problem:
            self._say("ERROR", problem)
            return None
        if not self._measure(network, config):
            self._say("INFO", "The build was cancelled.")
            return None
        if faults.build_kills:
            os.kill(os.getpid(), faults.build_kills)
            signal.pause()
        if faults.build_hangs:
            threading.Event().wait()
        if faults.build_exits:
            os._exit(faults.build_exits)
        control.built += 1
        return self._trt._IHostMemory(make_plan(self._trt, network, config))

    def _problem(self, network: Any, config: Any) -> str:
        """What the real one would refuse, and in roughly these words."""
        free = [
            value.name
            for value in network._model.graph.input
            if any(not dim.dim_value for dim in value.type.tensor_type.shape.dim)
        ]
        if free and not config._profiles:
            return f"Network has dynamic inputs {free}, but no optimization profile"
        for profile in config._profiles:
            if missing := sorted(set(free) - set(profile)):
                return f"{missing[0]}: dynamic input is missing dimensions in profile"
        strongly = self._trt._control.major == 10 and network._flags & 2
        if strongly and config._flags & {"FP16", "INT8", "OBEY_PRECISION_CONSTRAINTS"}:
            return "Precision flags are not allowed in a strongly typed network"
        return ""

    def _measure(self, network: Any, config: Any) -> bool:
        """Time what the cache does not know; report a step for each node."""
        nodes, monitor = network._model.graph.node, config._monitor
        known = set(config._cache._data["known"]) if config._cache is not None else set()
        if monitor is not None:
            monitor.phase_start("Building Engine", None, len(nodes))
        goes_on = True
        for step, node in enumerate(nodes):
            name = hashlib.sha256(node.SerializeToString()).hexdigest()[:12]
            self._trt._control.measured += name not in known
            known.add(name)
            if monitor is not None:
                goes_on = monitor.step_complete("Building Engine", step)
            if not goes_on:
                break
        if monitor is not None:
            monitor.phase_finish("Building Engine")
        if config._cache is not None:
            config._cache._data["known"] = sorted(known)
        return goes_on


def make_plan(trt: Any, network: Any, config: Any) -> bytes:
    """Magic, length and JSON of the head, the graph, and the sha256 of all before."""
    control = trt._control
    head = {
        "version": control.version,
        "device": control.device,
        "capability": control.capability,
        "hardware": config.hardware_compatibility_level.name,
        "verbosity": config.profiling_verbosity.name,
        "aux_streams": max(config.max_aux_streams, 0),
        "flags": sorted(config._flags),
        "sources": config._sources,
        "pools": config._pools,
        "level": config.builder_optimization_level,
        "iterations": config.avg_timing_iterations,
        "sharing": config._previews.get("PROFILE_SHARING_0806", control.major > 8),
        "profiles": config._profiles,
        "strongly_typed": control.major == 11 or bool(control.major == 10 and network._flags & 2),
        "kept": [layer.name for layer in network._layers if layer._precision is not None],
        "ignore_precision": control.faults.ignore_precision,
        "opaque": control.faults.opaque,
    }
    text = json.dumps(head).encode()
    body = MAGIC + len(text).to_bytes(8, "little") + text + network._model.SerializeToString()
    return body + hashlib.sha256(body).digest()


def read_plan(plan: bytes) -> tuple[dict[str, Any], bytes]:
    """Head and graph of a plan.

    Raises:
        ValueError: It is damaged.
    """
    body, digest = plan[:-32], plan[-32:]
    if not body.startswith(MAGIC) or hashlib.sha256(body).digest() != digest:
        raise ValueError("magic tag does not match")
    length = int.from_bytes(body[8:16], "little")
    return json.loads(body[16 : 16 + length]), body[16 + length :]


class Runtime(_Logging):
    def deserialize_cuda_engine(self, serialized_engine: bytes) -> Any:
        control = self._trt._control
        if control.faults.deserialize_says:
            self._say("ERROR", control.faults.deserialize_says)
            return None
        try:
            head, graph = read_plan(bytes(serialized_engine))
        except ValueError as error:
            self._say("ERROR", f"Serialization assertion failed: {error}")
            return None
        for what, own in (("version", control.version), ("capability", control.capability)):
            if head[what] != own and not (what == "capability" and head["hardware"] != "NONE"):
                self._say("ERROR", f"The engine plan file has {what} {head[what]}, expected {own}")
                return None
        return self._trt._ICudaEngine(head, graph, self._logger)


class ICudaEngine:
    _trt: Any

    def __init__(self, head: dict[str, Any], graph: bytes, logger: Any) -> None:
        self._head, self._logger = head, logger
        self._model = onnx.load_from_string(graph)
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        self._session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        weights = {weight.name for weight in self._model.graph.initializer}
        self._inputs = {v.name: v for v in self._model.graph.input if v.name not in weights}
        self._outputs = {v.name: v for v in self._model.graph.output}
        self._values = {**self._inputs, **self._outputs}
        self._owners: dict[int, weakref.ref[Any]] = {}  # of profiles, where they are not shared
        self._inferred: dict[tuple[Any, ...], dict[str, tuple[int, ...]]] = {}

    @property
    def num_io_tensors(self) -> int:
        return len(self._values)

    def get_tensor_name(self, index: int) -> str:
        return list(self._values)[index]

    def get_tensor_mode(self, name: str) -> Any:
        if name not in self._values:
            return self._trt.TensorIOMode.NONE
        modes = self._trt.TensorIOMode
        return modes.INPUT if name in self._inputs else modes.OUTPUT

    def get_tensor_dtype(self, name: str) -> Any:
        return self._trt.DataType[TYPES[self._values[name].type.tensor_type.elem_type]]

    def get_tensor_shape(self, name: str) -> Any:
        dims = self._values[name].type.tensor_type.shape.dim
        return self._trt._Dims(dim.dim_value or -1 for dim in dims)

    def get_tensor_location(self, name: str) -> Any:
        return self._trt.TensorLocation.DEVICE

    def get_tensor_format(self, name: str, profile_index: int = 0) -> Any:
        return self._trt.TensorFormat.LINEAR

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[Any]:
        shapes = self._head["profiles"][profile_index].get(name, [self.get_tensor_shape(name)] * 3)
        return [self._trt._Dims(shape) for shape in shapes]

    @property
    def num_optimization_profiles(self) -> int:
        return len(self._head["profiles"])

    @property
    def num_layers(self) -> int:
        return len(self._model.graph.node)

    @property
    def num_aux_streams(self) -> int:
        return int(self._head["aux_streams"])

    @property
    def _scratch(self) -> int:
        return 256 * len(self._model.graph.node)

    @property
    @only(8, 10)
    def device_memory_size(self) -> int:
        return self._scratch

    @property
    @only(10, 11)
    def device_memory_size_v2(self) -> int:
        return self._scratch

    def create_execution_context(self, strategy: Any = None) -> Any:
        modern = self._trt._control.major > 8
        if strategy is not None and not modern:
            raise TypeError("create_execution_context(): incompatible function arguments")
        managed = modern and strategy == self._trt.ExecutionContextAllocationStrategy.USER_MANAGED
        return self._context(own_scratch=not managed)

    @only(8, 10)
    def create_execution_context_without_device_memory(self) -> Any:
        return self._context(own_scratch=False)

    def _context(self, own_scratch: bool) -> Any:
        says = self._trt._control.faults.no_context
        if says:
            self._logger.log(self._trt.ILogger.Severity.ERROR, says)
            return None
        return self._trt._IExecutionContext(self, own_scratch)

    def create_engine_inspector(self) -> Any:
        return self._trt._EngineInspector(self)

    def _infer(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
        """Shapes of the outputs for shapes of the inputs."""
        key = tuple(sorted(shapes.items()))
        if key not in self._inferred:
            model = onnx.ModelProto()
            model.CopyFrom(self._model)
            for value in model.graph.input:
                for dim, size in zip(
                    value.type.tensor_type.shape.dim, shapes.get(value.name, ()), strict=False
                ):
                    dim.dim_value = size
            for value in model.graph.output:
                value.type.tensor_type.ClearField("shape")
            del model.graph.value_info[:]
            inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
            self._inferred[key] = {
                value.name: tuple(dim.dim_value or -1 for dim in value.type.tensor_type.shape.dim)
                for value in inferred.graph.output
            }
        return self._inferred[key]


class IExecutionContext:
    _trt: Any

    def __init__(self, engine: Any, own_scratch: bool) -> None:
        self._engine, self._scratch_set = engine, own_scratch
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}
        self._profile = -1
        self._host = threading.Lock()
        self._memory: list[int] = []  # scratch that the caller gave
        self._aux: list[int] = []
        self.nvtx_verbosity = self._trt.ProfilingVerbosity[engine._head["verbosity"]]
        self._claim(0)

    @property
    def engine(self) -> Any:
        return self._engine

    @property
    def active_optimization_profile(self) -> int:
        return self._profile

    def _claim(self, index: int) -> bool:
        """Take a profile; on 8.6 without sharing, one that no other context uses."""
        owner = self._engine._owners.get(index, lambda: None)()
        if not self._engine._head["sharing"] and owner not in (None, self):
            return False
        self._engine._owners[index] = weakref.ref(self)
        self._profile = index
        return True

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        if not 0 <= profile_index < self._engine.num_optimization_profiles:
            return self._refuse(f"profile {profile_index} does not exist")
        if not self._claim(profile_index):
            return self._refuse(f"profile {profile_index} has been chosen by another context")
        self._shapes.clear()
        return True

    def set_input_shape(self, name: str, shape: Any) -> bool:
        if name not in self._engine._inputs:
            return self._refuse(f"{name} is not an input")
        if self._profile < 0:
            return self._refuse("no optimization profile is set")
        least, _, greatest = self._engine.get_tensor_profile_shape(name, self._profile)
        shape = tuple(int(size) for size in shape)
        inside = len(shape) == len(least) and all(
            a <= size <= b for a, size, b in zip(least, shape, greatest, strict=True)
        )
        if not inside:
            return self._refuse(f"{name}: {shape} is outside of profile {self._profile}")
        self._shapes[name] = shape
        return True

    def get_tensor_shape(self, name: str) -> Any:
        shapes = {**self._static(), **self._shapes}
        if name in self._engine._inputs:
            return self._trt._Dims(shapes.get(name, self._engine.get_tensor_shape(name)))
        if set(shapes) != set(self._engine._inputs):
            return self._engine.get_tensor_shape(name)
        return self._trt._Dims(self._engine._infer(shapes)[name])

    def _static(self) -> dict[str, tuple[int, ...]]:
        shapes = {name: tuple(self._engine.get_tensor_shape(name)) for name in self._engine._inputs}
        return {name: shape for name, shape in shapes.items() if min(shape, default=0) >= 0}

    def infer_shapes(self) -> list[str]:
        known = {**self._static(), **self._shapes}
        return [name for name in self._engine._inputs if name not in known]

    def set_tensor_address(self, name: str, memory: int) -> bool:
        if name not in self._engine._values:
            return self._refuse(f"{name} is not an input or output")
        if memory % 256 and self._engine._head.get("strict_alignment"):
            return self._refuse(f"{name}: the address is not aligned")
        self._addresses[name] = int(memory)
        return True

    def get_tensor_address(self, name: str) -> int:
        return self._addresses.get(name, 0)

    @property
    def device_memory(self) -> Any:
        return None

    @device_memory.setter
    def device_memory(self, memory: int) -> None:
        self._scratch_set = self._check_scratch(memory, self._engine._scratch)
        self._memory = [memory]

    @only(10, 11)
    def set_device_memory(self, memory: int, size: int) -> None:
        self._scratch_set = self._check_scratch(memory, size)
        self._memory = [memory]

    def _check_scratch(self, memory: int, size: int) -> bool:
        if memory % 256 or size < self._engine._scratch:
            return self._refuse(f"scratch memory {memory:#x} of {size} bytes does not do")
        return bool(memory)

    def set_aux_streams(self, aux_streams: Sequence[int]) -> None:
        self._aux = list(aux_streams)

    def execute_async_v3(self, stream_handle: int) -> bool:
        control = self._trt._control
        if not self._host.acquire(blocking=False):
            raise AssertionError("two threads enqueue one context at once")
        try:
            problem = self._problem()
            if problem or control.faults.enqueue_fails:
                return self._refuse(problem or "enqueue failed: an injected fault")
            work = self._work(dict(self._addresses), {**self._static(), **self._shapes})
            try:
                control.launch(stream_handle, work, [*self._addresses.values(), *self._memory])
            except RuntimeError as error:  # the driver refuses: the real one returns False too
                return self._refuse(str(error))
        finally:
            self._host.release()
        return True

    def _problem(self) -> str:
        if missing := self.infer_shapes():
            return f"shape of input {missing[0]} is not set"
        if missing := sorted(set(self._engine._values) - set(self._addresses)):
            return f"address of {missing[0]} is not set"
        if not self._scratch_set and self._engine._scratch:
            return "device memory is not set"
        return ""

    def _work(
        self, addresses: Mapping[str, int], shapes: Mapping[str, tuple[int, ...]]
    ) -> Callable[[], None]:
        """What runs later, on the addresses and shapes of now."""
        engine, wrong = self._engine, self._trt._control.faults.wrong_values

        def work() -> None:
            feeds = {
                name: _view(addresses[name], shapes[name], engine.get_tensor_dtype(name).name)
                for name in engine._inputs
            }
            names = list(engine._outputs)
            for name, value in zip(names, engine._session.run(names, feeds), strict=True):
                kind = engine.get_tensor_dtype(name).name
                _view(addresses[name], value.shape, kind)[...] = value + wrong

        return work

    def _refuse(self, text: str) -> bool:
        self._engine._logger.log(self._trt.ILogger.Severity.ERROR, text)
        return False


def _view(address: int, shape: Sequence[int], kind: str) -> Any:
    dtype = np.dtype(NUMPY[kind])
    size = math.prod(shape) * dtype.itemsize
    memory = (ctypes.c_byte * size).from_address(address)
    return np.frombuffer(memory, dtype=dtype).reshape(shape)


class EngineInspector:
    """Tells each node as a layer, in the JSON of its version."""

    _trt: Any

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self.execution_context: Any = None

    def get_engine_information(self, format: Any) -> str:
        assert format == self._trt.LayerInformationFormat.JSON
        engine, head = self._engine, self._engine._head
        if head["verbosity"] == "LAYER_NAMES_ONLY":
            layers: list[Any] = [node.name for node in engine._model.graph.node]
        elif head["opaque"]:
            layers = [self._layer("{ForeignNode[a...z]}", "Myelin", "FLOAT", "FLOAT")]
        else:
            layers = list(self._layers())
        names = list(engine._values)
        if self._trt._control.major < 11:
            return json.dumps({"Layers": layers, "Bindings": names})
        tensors = [{"Name": name, "DataType": "Float"} for name in names]
        return json.dumps({"Layers": layers, "I/O Tensors": tensors})

    def _layers(self) -> Iterator[dict[str, Any]]:
        """One a node; Q and DQ vanish into the convolution that reads them, Casts are reformats."""
        engine, head = self._engine, self._engine._head
        graph = onnx.shape_inference.infer_shapes(engine._model).graph
        types = {
            value.name: TYPES.get(value.type.tensor_type.elem_type, "FLOAT")
            for value in (*graph.input, *graph.value_info, *graph.output)
        } | {weight.name: TYPES.get(weight.data_type, "FLOAT") for weight in graph.initializer}
        made_by = {name: node.op_type for node in graph.node for name in node.output}
        weak = not head["strongly_typed"]
        for node in graph.node:
            if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
                continue
            read, written = (types.get(names[0], "FLOAT") for names in (node.input, node.output))
            if made_by.get(node.input[0]) == "DequantizeLinear":
                read = "INT8"
            if head["ignore_precision"] or (weak and not head["flags"] and node.op_type != "Cast"):
                read = written = "FLOAT"
            if weak and "FP16" not in head["flags"]:
                read, written = ("FLOAT" if t == "HALF" else t for t in (read, written))
            if weak and "INT8" not in head["flags"]:
                read = "FLOAT" if read == "INT8" else read
            kind = "Reformat" if node.op_type == "Cast" else node.op_type
            yield self._layer(node.name, kind, read, written)

    def _layer(self, name: str, kind: str, read: str, written: str) -> dict[str, Any]:
        return {
            "Name": name,
            "LayerType": kind,
            "Inputs": [self._tensor(read)],
            "Outputs": [self._tensor(written)],
            "TacticName": "fake",
        }

    def _tensor(self, kind: str) -> dict[str, Any]:
        dynamic = any(-1 in self._engine.get_tensor_shape(name) for name in self._engine._inputs)
        known = not dynamic or (
            self.execution_context is not None and not self.execution_context.infer_shapes()
        )
        text = {"FLOAT": "FP32", "HALF": "FP16", "INT8": "Int8"}.get(kind, kind.title())
        told = f"Row major linear {text} format" if known else "N/A due to dynamic shapes"
        if self._trt._control.major < 11:
            return {"Name": "t", "Format/Datatype": told}
        return {"Name": "t", "Format": told, "DataType": kind.title()}


CLASSES: tuple[type, ...] = (
    Dims,
    IHostMemory,
    ILogger,
    IProgressMonitor,
    ParserError,
    OnnxParser,
    ILayer,
    INetworkDefinition,
    IOptimizationProfile,
    ITimingCache,
    IBuilderConfig,
    Builder,
    Runtime,
    ICudaEngine,
    IExecutionContext,
    EngineInspector,
)
