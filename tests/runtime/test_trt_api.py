"""What our code and the fake one call TensorRT by, against the real bindings of 8.6, 10 and 11."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest

from tests.stubs.fake_tensorrt import CLASSES, fake_tensorrt
from tests.stubs.real_bindings import BINDINGS, RealBindings

PACKAGE = Path(__file__).parents[2] / "parnet_deploy"
SOURCES = sorted(
    path
    for pattern in ("runtime/tensorrt/*.py", "builder/tensorrt/*.py")
    for path in PACKAGE.glob(pattern)
    if path.name not in ("__init__.py", "inspection.py")  # it names layers of its own
)
FAKE = CLASSES[0].__module__
KINDS = {
    "builder": "Builder",
    "config": "IBuilderConfig",
    "context": "IExecutionContext",
    "engine": "ICudaEngine",
    "inspector": "EngineInspector",
    "layer": "ILayer",
    "network": "INetworkDefinition",
    "parser": "OnnxParser",
    "profile": "IOptimizationProfile",
    "runtime": "Runtime",
    "merged": "ITimingCache",
}
"""Our names of variables, and of attributes of our objects, that hold a TensorRT object."""

OWN = {"backend.py": ("engine",), "profiles.py": ("profile",)}
"""Variables of a file whose name is in the table and that hold an object of ours."""

GUARDED = {
    # what our code asks for by hasattr or after weakly_typed, and the versions that have it
    "trt.IProgressMonitor": {"10.16", "11.4"},
    "trt.ExecutionContextAllocationStrategy": {"10.16", "11.4"},
    "trt.ExecutionContextAllocationStrategy.USER_MANAGED": {"10.16", "11.4"},
    "IBuilderConfig.progress_monitor": {"10.16", "11.4"},
    "ICudaEngine.device_memory_size": {"8.6", "10.16"},
    "ICudaEngine.create_execution_context_without_device_memory": {"8.6", "10.16"},
    "IExecutionContext.set_device_memory": {"10.16", "11.4"},
    "ILayer.precision": {"8.6", "10.16"},
}


@pytest.fixture(scope="module", params=BINDINGS)
def real(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> RealBindings:
    return RealBindings(request.param, tmp_path_factory.mktemp("bindings"))


def used() -> dict[str, str]:
    """Every attribute of TensorRT that our code names, and where."""
    found = {}
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute):
                for name in _named(node, OWN.get(path.name, ())):
                    found[name] = f"{path.name}:{node.lineno}"
    return found


def _named(node: ast.Attribute, own: Sequence[str]) -> Iterator[str]:
    """From ``trt.A.B``, ``engine.a``, ``self._engine.a`` and ``binding.context.a``."""
    chain = [node.attr]
    value: ast.expr = node.value
    while isinstance(value, ast.Attribute):
        chain.append(value.attr)
        value = value.value
    if not isinstance(value, ast.Name):
        return
    first, *names = value.id, *takewhile(lambda name: not name.startswith("__"), chain[::-1])
    if names and first == "trt":
        yield ".".join(["trt", *names[:2]])
    elif names and first in KINDS and first not in own:
        yield f"{KINDS[first]}.{names[0]}"
    elif len(names) > 1 and names[0].removeprefix("_") in KINDS:
        yield f"{KINDS[names[0].removeprefix('_')]}.{names[1]}"


def exists(surface: dict[str, Any], name: str) -> bool:
    first, *rest = name.removeprefix("trt.").split(".")
    if first not in surface:
        return False
    return all(attribute in (surface[first] or ()) for attribute in rest)


def test_the_search_finds_what_is_used() -> None:
    names = used()
    assert {path.name for path in SOURCES} >= {"compat.py", "config.py", "build.py"}
    assert "Builder.build_serialized_network" in names
    assert "trt.ProfilingVerbosity.DETAILED" in names
    assert set(GUARDED) <= set(names), "a guard that nothing needs"
    assert len(names) > 50


def test_every_name_is_in_the_real_bindings(real: RealBindings) -> None:
    absent = {}
    for name, where in used().items():
        expected = real.version in GUARDED.get(name, BINDINGS)
        if exists(real.surface(), name) != expected:
            absent[name] = f"{where}: {'absent' if expected else 'present, the guard is wrong'}"
    assert absent == {}


def test_the_fake_has_nothing_that_the_real_one_lacks(real: RealBindings) -> None:
    surface = real.surface()
    fake = fake_tensorrt(real.version)
    assert fake.__version__ == BINDINGS[real.version]
    public = {name: value for name, value in vars(fake).items() if not name.startswith("_")}
    assert {kind.__name__ for kind in CLASSES} - set(public) <= {"IProgressMonitor"}
    lies = [name for name in public if name not in surface]
    for name, value in public.items():
        if hasattr(value, "__members__"):
            numbers = {member: int(number) for member, number in value.__members__.items()}
            lies += [f"{name}.{m}={n}" for m, n in numbers.items() if surface[name].get(m) != n]
        else:
            own = {a for kind in value.__mro__[:-1] for a in vars(kind) if kind.__module__ == FAKE}
            lies += [f"{name}.{a}" for a in own if a[0] != "_" and a not in surface[name]]
    assert lies == []


def test_the_fake_has_all_that_our_code_uses(real: RealBindings) -> None:
    fake = fake_tensorrt(real.version)
    surface = {
        name: list(value.__members__) if hasattr(value, "__members__") else dir(value)
        for name, value in vars(fake).items()
    }
    instance = {"IBuilderConfig": vars(fake.IBuilderConfig())}
    instance["IExecutionContext"] = {"nvtx_verbosity": None}
    instance["EngineInspector"] = {"execution_context": None}
    lacking = [
        name
        for name in used()
        if exists(real.surface(), name)
        and not exists(surface, name)
        and name.partition(".")[2] not in instance.get(name.partition(".")[0], ())
    ]
    assert lacking == []


SHIMS = """
from unittest.mock import NonCallableMagicMock as Mock
from parnet_deploy.builder.tensorrt import config as config_shims
from parnet_deploy.runtime.tensorrt import compat
from parnet_deploy.runtime.tensorrt import log

def bound(kind, **values):  # only what the real class has can be read, called or set
    mock = Mock(spec_set=kind)
    for name, value in values.items():
        setattr(mock, name, value)
    return mock

config = bound(trt.IBuilderConfig)
config.set_tactic_sources.return_value = True
config.add_optimization_profile.return_value = 0
builder = bound(trt.Builder)
"""


def run_shim(real: RealBindings, code: str) -> Any:
    return real.run(SHIMS + code)


def test_network_flags(real: RealBindings) -> None:
    code = """
config_shims.make_network(trt, builder)
result = [
    config_shims.network_flags(trt), config_shims.weakly_typed(trt),
    builder.create_network.call_args.args[0], compat.major_version(trt),
]
"""
    assert (
        run_shim(real, code)
        == {
            "8.6": [["EXPLICIT_BATCH"], True, 1, 8],
            "10.16": [["STRONGLY_TYPED"], False, 2, 10],
            "11.4": [[], False, 0, 11],
        }[real.version]
    )


def test_precision_flags_are_set_where_they_exist(real: RealBindings) -> None:
    code = """
flags = config_shims.precision_flags(trt, half=True, quantized=True)
for name in flags:
    config_shims.set_flag(trt, config, name, required=True)
config_shims.set_flag(trt, config, "TF32", False)
result = [
    [call.args[0].name for call in config.set_flag.call_args_list],
    [call.args[0].name for call in config.clear_flag.call_args_list],
    config_shims.set_flag(trt, config, "FP16"),
]
"""
    weak = ["FP16", "OBEY_PRECISION_CONSTRAINTS", "INT8"] if real.version == "8.6" else []
    assert run_shim(real, code) == [weak, ["TF32"], real.version != "11.4"]


def test_sources_previews_and_hardware(real: RealBindings) -> None:
    code = """
sources = config_shims.restrict_sources(trt, config)
known = config_shims.set_previews(trt, config, {"PROFILE_SHARING_0806": True, "NO_SUCH": True})
config_shims.set_hardware(trt, config, "ampere_plus")
result = [
    sources, config.set_tactic_sources.call_args.args[0], known,
    config.hardware_compatibility_level.name,
    [call.args[0].name for call in config.set_preview_feature.call_args_list],
]
"""
    sources, bits, known, level, previews = run_shim(real, code)
    assert sources == ["EDGE_MASK_CONVOLUTIONS", "JIT_CONVOLUTIONS"]
    assert bits == (0b11 if real.version == "11.4" else 0b11000)
    assert known == ({} if real.version == "11.4" else {"PROFILE_SHARING_0806": True})
    assert level == "AMPERE_PLUS"
    external = "DISABLE_EXTERNAL_TACTIC_SOURCES_FOR_CORE_0805"
    assert previews == [external] * (real.version == "8.6") + list(known)


def test_profiles(real: RealBindings) -> None:
    code = """
builder.create_optimization_profile.return_value = profile = bound(trt.IOptimizationProfile)
index = config_shims.add_profile(builder, config, {"x": ((1, 3), (1, 3), (2, 3))})
result = [index, profile.set_shape.call_args.args]
trt.Dims((1, 3))  # what the bindings make of such a tuple
"""
    assert run_shim(real, code) == [0, ["x", [1, 3], [1, 3], [2, 3]]]


def test_contexts_and_scratch(real: RealBindings) -> None:
    code = """
engine = bound(trt.ICudaEngine)
for name in ("device_memory_size", "device_memory_size_v2"):
    if hasattr(trt.ICudaEngine, name):
        setattr(engine, name, 4096)
modern = hasattr(trt, "ExecutionContextAllocationStrategy")
old = getattr(engine, "create_execution_context_without_device_memory", None)
context = bound(trt.IExecutionContext)
engine.create_execution_context.return_value = context
if old is not None:
    old.return_value = context
made = compat.make_context(trt, engine)
compat.set_scratch(made, 0x1000, 4096)
given = [arg.name for arg in engine.create_execution_context.call_args.args] if modern else None
setter = getattr(made, "set_device_memory", None)
result = [
    compat.scratch_bytes(engine), made is context, made.nvtx_verbosity.name, given,
    setter.call_args.args if setter is not None else made.device_memory,
]
"""
    modern = real.version != "8.6"
    memory = [0x1000, 4096] if modern else 0x1000
    given = ["USER_MANAGED"] if modern else None
    assert run_shim(real, code) == [4096, True, "NONE", given, memory]


def test_io_tensors(real: RealBindings) -> None:
    code = """
engine = bound(trt.ICudaEngine, num_io_tensors=2, num_optimization_profiles=1)
engine.get_tensor_name.side_effect = ["x", "y"].__getitem__
modes = {"x": trt.TensorIOMode.INPUT, "y": trt.TensorIOMode.OUTPUT}
engine.get_tensor_mode.side_effect = modes.__getitem__
engine.get_tensor_dtype.side_effect = {"x": trt.float32, "y": trt.float16}.__getitem__
engine.get_tensor_shape.return_value = trt.Dims((-1, 3))
engine.get_tensor_profile_shape.return_value = [trt.Dims((n, 3)) for n in (1, 2, 4)]
tensors = [tensor.to_json() for tensor in compat.io_tensors(trt, engine)]
names = set(trt.DataType.__members__) - set(compat.DTYPES)
result = [tensors, sorted(names)]
"""
    tensors, unnamed = run_shim(real, code)
    assert unnamed == [], "data types without a name of numpy"
    assert [(t["name"], t["is_input"], t["dtype"]) for t in tensors] == [
        ("x", True, "float32"),
        ("y", False, "float16"),
    ]
    assert tensors[0]["profiles"] == [[[1, 3], [2, 3], [4, 3]]]
    assert tensors[1]["shape"] == [-1, 3]


def test_progress_monitor(real: RealBindings) -> None:
    code = """
steps = []
monitor = config_shims.watch_build(trt, config, lambda *step: steps.append(step) or len(steps) < 2)
if monitor is not None:
    assert isinstance(monitor, trt.IProgressMonitor) and config.progress_monitor is monitor
    monitor.phase_start("tactics", None, 4)
    answers = [monitor.step_complete("tactics", 0), monitor.step_complete("tactics", 1)]
    monitor.phase_finish("tactics")
    steps.append(answers)
result = steps
"""
    expected = [["tactics", 1, 4], ["tactics", 2, 4], [True, False]]
    assert run_shim(real, code) == ([] if real.version == "8.6" else expected)


def test_parser_errors(real: RealBindings) -> None:
    code = """
error = bound(trt.ParserError)
error.code.return_value = trt.ErrorCode.UNSUPPORTED_NODE
error.node.return_value = 3
error.desc.return_value = "no"
for name, value in (("node_name", "head"), ("node_operator", "Einsum")):
    if hasattr(trt.ParserError, name):
        getattr(error, name).return_value = value
parser = bound(trt.OnnxParser, num_errors=1)
parser.get_error.return_value = error
result = config_shims.parser_errors(parser)
"""
    old = real.version == "8.6"
    node, operator = ("number 3", "") if old else ("head", "Einsum")
    assert run_shim(real, code) == [
        {"node": node, "operator": operator, "code": "UNSUPPORTED_NODE", "text": "no"}
    ]


def test_the_logger_is_one_that_the_bindings_take(real: RealBindings) -> None:
    """A Runtime over libraries that hold nothing is refused by name, not by type of argument."""
    code = """
from parnet_deploy.errors import BackendError
logger = log.make_logger(trt)
assert isinstance(logger, trt.ILogger) and logger is log.make_logger(trt)
logger.log(trt.ILogger.Severity.WARNING, "careful")
logger.log(trt.ILogger.Severity.VERBOSE, "much")
result = [log.log_tail(severe=False)]
for make in (compat.make_runtime, config_shims.make_builder):
    try:
        make(trt)
    except BackendError as error:
        result.append([type(error).__name__, str(error), str(error.__cause__)])
"""
    tail, runtime, builder = run_shim(real, code)
    assert tail == ["warning: careful"]
    assert (runtime[0], builder[0]) == ("EngineLoadError", "EngineBuildError")
    assert f"TensorRT {BINDINGS[real.version]} Runtime: got nothing" in runtime[1]
    assert "factory function returned nullptr" in runtime[2]
    assert "factory function returned nullptr" in builder[2]


def test_module_is_found_and_the_driver_asked_first(real: RealBindings) -> None:
    """The bindings alone (no ``tensorrt``) are enough; without a driver nothing is made."""
    code = """
from parnet_deploy.errors import DeviceUnavailableError
compat.probe_gpus = lambda: (0, "no driver")
try:
    compat.load_tensorrt()
except DeviceUnavailableError as error:
    result = str(error)
compat.probe_gpus = lambda: (1, "")
assert compat.load_tensorrt() is trt
"""
    text = run_shim(real, code)
    assert text.startswith(f"TensorRT {BINDINGS[real.version]}: got no usable GPU (no driver)")
