"""TensorRT's differences and its log, on fake modules of each version."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from parnet_deploy.builder.tensorrt import config as config_shims
from parnet_deploy.errors import (
    BackendError,
    DeviceUnavailableError,
    EngineBuildError,
    EngineLoadError,
    MissingExtraError,
    OutOfMemoryError,
)
from parnet_deploy.runtime.tensorrt import compat, log
from tests.builder.trt_graphs import CHANNELS, conv_graph
from tests.stubs.fake_tensorrt import VERSIONS, Faults, fake_tensorrt

SIZE = (CHANNELS, 8, 8)
ONE = {"x": ((1, *SIZE),) * 3}
MANY = {"x": ((2, *SIZE), (4, *SIZE), (4, *SIZE))}


@pytest.fixture(params=VERSIONS)
def trt(request: pytest.FixtureRequest) -> Any:
    return fake_tensorrt(request.param)


@pytest.fixture
def no_tensorrt(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in compat.MODULES:
        monkeypatch.setitem(sys.modules, name, None)  # import raises ModuleNotFoundError
    monkeypatch.setattr(compat, "probe_gpus", lambda: (1, ""))
    return monkeypatch


def make_plan(trt: Any, graph: bytes = b"", **settings: Any) -> bytes:
    builder = config_shims.make_builder(trt)
    network = config_shims.make_network(trt, builder)
    assert trt.OnnxParser(network, log.make_logger(trt)).parse(graph or conv_graph())
    config = builder.create_builder_config()
    for name, value in settings.items():
        setattr(config, name, value)
    for shapes in (ONE, MANY):
        config_shims.add_profile(builder, config, shapes)
    return bytes(builder.build_serialized_network(network, config))


def load(trt: Any, graph: bytes = b"", **settings: Any) -> Any:
    plan = make_plan(trt, graph, **settings)
    return compat.load_engine(trt, compat.make_runtime(trt), plan, name="s")


class Bound:
    """A context with memory of its own for every tensor."""

    def __init__(self, trt: Any, engine: Any, profile: int, batch: int) -> None:
        self.context = compat.make_context(trt, engine)
        nbytes = compat.scratch_bytes(engine)
        self._scratch = np.zeros(nbytes + 256, np.uint8)
        compat.set_scratch(self.context, -(-self._scratch.ctypes.data // 256) * 256, nbytes)
        compat.set_profile(self.context, profile, 1)
        self.x = np.random.default_rng(0).normal(size=(batch, *SIZE)).astype(np.float32)
        self.y = np.full_like(self.x, np.nan)
        assert self.context.set_input_shape("x", self.x.shape)
        for name, array in (("x", self.x), ("y", self.y)):
            assert self.context.set_tensor_address(name, array.ctypes.data)


def test_load_takes_tensorrt_then_its_bindings(
    trt: ModuleType, no_tensorrt: pytest.MonkeyPatch
) -> None:
    no_tensorrt.setitem(sys.modules, "tensorrt_bindings", trt)
    assert compat.load_tensorrt() is trt
    other = fake_tensorrt("11.4")
    no_tensorrt.setitem(sys.modules, "tensorrt", other)
    assert compat.load_tensorrt() is other


def test_load_without_the_package(no_tensorrt: pytest.MonkeyPatch) -> None:
    with pytest.raises(MissingExtraError, match=r"package tensorrt: .*parnet-deploy\[gpu\]"):
        compat.load_tensorrt()


def test_load_without_a_driver(trt: ModuleType, no_tensorrt: pytest.MonkeyPatch) -> None:
    no_tensorrt.setitem(sys.modules, "tensorrt", trt)
    no_tensorrt.setattr(compat, "probe_gpus", lambda: (0, "no NVIDIA driver"))
    with pytest.raises(DeviceUnavailableError, match=r"got no usable GPU \(no NVIDIA driver\)"):
        compat.load_tensorrt()


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ImportError("libnvinfer.so.10: cannot open shared object file"), BackendError),
        (ModuleNotFoundError("No module named 'numpy'", name="numpy"), ModuleNotFoundError),
    ],
)
def test_load_of_a_broken_package(
    error: ImportError, kind: type[Exception], no_tensorrt: pytest.MonkeyPatch
) -> None:
    def broken(name: str) -> Any:
        raise error

    no_tensorrt.setattr(compat, "import_module", broken)
    with pytest.raises(kind, match=r"libnvinfer|numpy"):
        compat.load_tensorrt()


def test_a_runtime_without_builder_cannot_build(trt: Any) -> None:
    del trt.Builder
    with pytest.raises(EngineBuildError, match="got a runtime that cannot build"):
        config_shims.make_builder(trt)
    assert compat.make_runtime(trt) is not None


@pytest.mark.parametrize(
    ("make", "kind"),
    [(compat.make_runtime, EngineLoadError), (config_shims.make_builder, EngineBuildError)],
)
def test_what_does_not_start(
    make: Callable[[Any], Any], kind: type[BackendError], trt: Any
) -> None:
    trt._control.faults.starts = False
    with pytest.raises(kind, match=r"got nothing, expected one that starts\. TensorRT says: noth"):
        make(trt)


def test_required_flag_that_is_gone() -> None:
    new = fake_tensorrt("11.4")
    config = config_shims.make_builder(new).create_builder_config()
    assert config_shims.set_flag(new, config, "FP16") is False
    with pytest.raises(EngineBuildError, match=r"TensorRT 11\.4.* got no builder flag FP16"):
        config_shims.set_flag(new, config, "FP16", required=True)


def test_flags_are_set_and_cleared(trt: Any) -> None:
    config = config_shims.make_builder(trt).create_builder_config()
    tf32 = trt.BuilderFlag.TF32
    assert config.get_flag(tf32), "on by default, as in the real one"
    assert config_shims.set_flag(trt, config, "TF32", False)
    assert not config.get_flag(tf32)
    config_shims.set_flag(trt, config, "TF32")
    assert config.get_flag(tf32)


def test_hardware_levels(trt: Any) -> None:
    config = config_shims.make_builder(trt).create_builder_config()
    config_shims.set_hardware(trt, config, "ampere_plus")
    assert config.hardware_compatibility_level == trt.HardwareCompatibilityLevel.AMPERE_PLUS
    with pytest.raises(EngineBuildError, match="got 'volta', expected one of ampere_plus, none"):
        config_shims.set_hardware(trt, config, "volta")


def test_sources_that_are_refused(trt: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_shims.make_builder(trt).create_builder_config()
    assert config_shims.restrict_sources(trt, config) == config_shims.OWN_SOURCES
    monkeypatch.setattr(trt._IBuilderConfig, "set_tactic_sources", lambda *_: False)
    with pytest.raises(EngineBuildError, match=r"tactic sources EDGE_MASK.*: got a refusal"):
        config_shims.restrict_sources(trt, config)


def test_libraries_matter_on_8_only(trt: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config_shims, "_loads", lambda library: "cudnn" in library)
    missing = ("CUBLAS", "CUBLAS_LT") if trt.__version__[0] == "8" else ()
    assert config_shims.missing_libraries(trt) == missing
    monkeypatch.undo()
    assert not config_shims._loads("libno-such-thing.so.0")
    assert config_shims._loads("libc.so.6")


def test_profile_that_is_refused(trt: Any) -> None:
    builder = config_shims.make_builder(trt)
    config = builder.create_builder_config()
    assert config_shims.add_profile(builder, config, ONE) == 0
    wrong = {"x": ((4, *SIZE), (2, *SIZE), (4, *SIZE))}
    with pytest.raises(EngineBuildError, match=r"optimisation profile .* got a refusal"):
        config_shims.add_profile(builder, config, wrong)


def test_io_tensors_and_scratch(trt: Any) -> None:
    engine = load(trt)
    x, y = compat.io_tensors(trt, engine)
    assert (x.name, x.is_input, x.dtype, x.shape) == ("x", True, "float32", (-1, CHANNELS, -1, -1))
    assert x.profiles == (ONE["x"], MANY["x"])
    assert (y.name, y.is_input, y.profiles) == ("y", False, ())
    assert y.to_json()["shape"] == [-1, CHANNELS, -1, -1]
    assert compat.scratch_bytes(engine) > 0
    assert compat.dtype_name(trt.DataType.HALF) == "float16"


def test_contexts_emit_no_ranges_and_run(trt: Any) -> None:
    engine = load(trt, profiling_verbosity=trt.ProfilingVerbosity.DETAILED)
    bound = Bound(trt, engine, profile=1, batch=3)
    assert bound.context.nvtx_verbosity == trt.ProfilingVerbosity.NONE
    assert bound.context.execute_async_v3(1)
    assert np.isfinite(bound.y).all()
    own = compat.make_context(trt, engine, own_scratch=True)
    assert own.execute_async_v3(1) is False, "no shapes, no addresses"
    assert log.log_tail()[-1] == "error: shape of input x is not set"


def test_profile_refusals(trt: Any) -> None:
    """8.6 without sharing: one context for each profile. Later: no such profile only."""
    engine = load(trt)
    first, second = (compat.make_context(trt, engine) for _ in range(2))
    with pytest.raises(EngineLoadError, match="optimisation profile 2: got a refusal"):
        compat.set_profile(first, 2, 1)
    if trt.__version__[0] == "8":
        with pytest.raises(EngineLoadError, match="has been chosen by another context"):
            compat.set_profile(second, 0, 1)
    else:
        compat.set_profile(second, 0, 1)


def test_refused_plan_and_context_quote_the_log(trt: Any) -> None:
    plan = make_plan(trt)
    runtime = compat.make_runtime(trt)
    damaged = plan[:-1] + bytes([plan[-1] ^ 1])
    with pytest.raises(EngineLoadError, match=r"engine s: got a plan that .*magic tag does not"):
        compat.load_engine(trt, runtime, damaged, name="s")
    engine = compat.load_engine(trt, runtime, plan, name="s")
    trt._control.faults.no_context = "Requested amount of GPU memory: out of memory"
    with pytest.raises(OutOfMemoryError, match=r"engine s: got no execution context.*Free memory"):
        compat.make_context(trt, engine, name="s")


def test_plan_of_another_version_is_refused() -> None:
    old, new = fake_tensorrt("10.16"), fake_tensorrt("11.4")
    with pytest.raises(EngineLoadError, match=r"has version 10\.16\.1\.11, expected 11\.4\.0\.106"):
        compat.load_engine(new, compat.make_runtime(new), make_plan(old), name="s")


def test_one_logger_for_a_module(trt: Any) -> None:
    assert log.make_logger(trt) is log.make_logger(trt)
    assert log.make_logger(trt) is not log.make_logger(fake_tensorrt("10.16"))
    assert isinstance(log.make_logger(trt), trt.ILogger)


def test_log_levels_and_tail(trt: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "parnet_deploy.tensorrt")
    logger, severity = log.make_logger(trt), trt.ILogger.Severity
    start = log.log_position()
    for name in ("VERBOSE", "INFO", "WARNING", "ERROR", "INTERNAL_ERROR"):
        logger.log(severity[name], name.lower())
    levels = [record.levelname for record in caplog.records]
    assert levels == ["DEBUG", "DEBUG", "WARNING", "ERROR", "ERROR"]
    severe = ["warning: warning", "error: error", "internal_error: internal_error"]
    assert log.log_tail(start) == severe
    assert log.log_tail(start, severe=False) == ["info: info", *severe]
    assert log.log_tail(start, lines=1) == severe[-1:]
    assert log.log_tail(log.log_position()) == []


def test_the_ring_is_bounded(trt: Any) -> None:
    logger, severity = log.make_logger(trt), trt.ILogger.Severity
    start = log.log_position()
    for number in range(log.KEPT + 50):
        logger.log(severity.ERROR, str(number))
    kept = log.log_tail(start, lines=10_000)
    assert len(kept) == log.KEPT
    assert kept[-1] == f"error: {log.KEPT + 49}"


def test_warnings_of_memory_are_no_lack_of_memory() -> None:
    assert not log.lacks_memory(["warning: tactic skipped: out of memory"])
    assert log.lacks_memory(["error: Cuda Runtime (out of memory)"])
    assert log.quote([]) == "nothing."
    assert log.quote(["error: a\n  b", "error: c"]) == "error: a b | error: c."


def test_contexts_of_the_fake_check_like_real_ones(trt: Any) -> None:
    """The fake can be relied on: it refuses what would be an error on a GPU."""
    bound = Bound(trt, load(trt), profile=0, batch=1)
    context = bound.context
    assert not context.set_input_shape("x", (2, *SIZE)), "outside of the profile"
    assert not context.set_input_shape("y", (1, *SIZE)), "not an input"
    assert not context.set_tensor_address("z", 256)
    assert context.execute_async_v3(1)
    compat.set_profile(context, 1, 1)
    assert context.infer_shapes() == ["x"], "a profile forgets shapes"
    assert not context.execute_async_v3(1)
    trt._control.faults.enqueue_fails = True
    assert context.set_input_shape("x", (2, *SIZE))
    assert not context.execute_async_v3(1)
    assert log.log_tail()[-1] == "error: enqueue failed: an injected fault"


def test_wrong_values_can_be_injected(trt: Any) -> None:
    bound = Bound(trt, load(trt), profile=0, batch=1)
    assert bound.context.execute_async_v3(1)
    right = bound.y.copy()
    trt._control.faults = Faults(wrong_values=True)
    assert bound.context.execute_async_v3(1)
    np.testing.assert_allclose(bound.y, right + 1, rtol=1e-6)


def test_launch_is_where_work_enters_a_stream(trt: Any) -> None:
    """Work runs when the stream gets to it, on the addresses and shapes of its enqueue."""
    queue: list[tuple[int, Callable[[], None], Sequence[int]]] = []
    trt._control.launch = lambda *call: queue.append(call)
    bound = Bound(trt, load(trt), profile=0, batch=1)
    assert bound.context.execute_async_v3(5)
    assert np.isnan(bound.y).all()
    other = np.full_like(bound.y, np.nan)
    assert bound.context.set_tensor_address("y", other.ctypes.data)
    ((stream, work, touches),) = queue
    assert stream == 5
    assert {bound.x.ctypes.data, bound.y.ctypes.data} <= set(touches)
    work()
    assert np.isfinite(bound.y).all()
    assert np.isnan(other).all()
