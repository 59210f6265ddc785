"""Builds in a child process, under a fake TensorRT of each version: records, caches, failures."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from parnet_deploy.builder import child
from parnet_deploy.builder.tensorrt import engine as tensorrt
from parnet_deploy.builder.tensorrt.engine import TensorRtOptions, build_engine
from parnet_deploy.builder.tensorrt.profiles import ShapeRange
from parnet_deploy.errors import (
    DeviceUnavailableError,
    EngineBuildError,
    EngineLoadError,
    MissingExtraError,
    OutOfMemoryError,
    ParnetDeployError,
    SpecError,
)
from tests.builder.fake_gpu import FakeGpu
from tests.builder.trt_graphs import CHANNELS, conv_graph
from tests.stubs.fake_tensorrt import VERSIONS, Faults, read_plan

SIZE = (CHANNELS, 8, 8)
ONE = {"x": ShapeRange((1, *SIZE), (1, *SIZE), (1, *SIZE))}
MANY = {"x": ShapeRange((2, *SIZE), (4, *SIZE), (4, *SIZE))}
LIMIT_S = 60.0  # only so that a broken test ends; nothing waits this long


@pytest.fixture
def build(fake_gpu: FakeGpu, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Build the small graph, or another, as segment ``s``."""

    def run(graph: bytes | None = None, **options: Any) -> dict[str, Any]:
        on_progress = options.pop("on_progress", lambda text: None)
        return build_engine(
            conv_graph() if graph is None else graph,
            tmp_path / "s.plan",
            name="s",
            device=options.pop("device", 0),
            profiles=options.pop("profiles", [ONE, MANY]),
            options=TensorRtOptions(**options),
            on_progress=on_progress,
        )

    return run


Build = Callable[..., dict[str, Any]]


@pytest.mark.parametrize("version", VERSIONS)
def test_record_and_plan(version: str, fake_gpu: FakeGpu, build: Build, tmp_path: Path) -> None:
    fake_gpu.install(version, Faults(warning="a tactic was skipped"))
    texts: list[str] = []
    record = build(on_progress=texts.append, aux_streams=2, workspace_mib=64, device=1)
    head, graph = read_plan((tmp_path / "s.plan").read_bytes())
    assert graph == conv_graph()
    assert json.loads(json.dumps(record)) == record, "plain JSON"
    assert record["tensorrt"] == VERSIONS[version] == head["version"]
    assert record["device"]["ordinal"] == 1
    assert record["device"]["name"] == "Stand-in GPU"
    assert record["device"]["uuid"] == "GPU-01112131-4151-6171-8191-a1b1c1d1e1f1"
    assert record["device"]["compute_capability"] == "9.0"
    assert record["device"]["driver_cuda"] == "13.0"
    assert (record["plan_bytes"], record["precision"]) == (
        (tmp_path / "s.plan").stat().st_size,
        "fp32",
    )
    assert record["layers"] == {"float32": 3}
    assert (record["reformats"], record["layers_fused"], record["precision_found"]) == (0, 0, {})
    assert record["aux_streams"] == head["aux_streams"] == 2
    assert head["pools"] == {"WORKSPACE": 64 * 2**20}
    assert head["verbosity"] == "DETAILED"
    assert "TF32" not in head["flags"]
    assert record["scratch_bytes"] > 0
    assert record["tensors"][0]["profiles"][1] == [list(shape) for shape in MANY["x"]]
    assert record["log"] == ["warning: a tactic was skipped"]
    assert record["cache"]["hit"] is False
    assert record["weakly_typed"] is (version == "8.6")
    assert texts[0] == f"s: building with TensorRT {VERSIONS[version]}"
    steps = [text for text in texts if "Building Engine" in text]
    assert steps == (
        [] if version == "8.6" else [f"s: Building Engine: {n} %" for n in (33, 66, 100)]
    )


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(("half", "quantized"), [(True, False), (False, True), (True, True)])
def test_precision_comes_from_the_graph(
    version: str, half: bool, quantized: bool, fake_gpu: FakeGpu, build: Build
) -> None:
    fake_gpu.install(version)
    record = build(conv_graph(half=half, quantized=quantized))
    flags = ["FP16", "OBEY_PRECISION_CONSTRAINTS"] * half + ["INT8"] * quantized
    assert record["builder_flags"] == (flags if version == "8.6" else [])
    expected = {"8.6": ["EXPLICIT_BATCH"], "10.16": ["STRONGLY_TYPED"], "11.4": []}
    assert record["network_flags"] == expected[version]
    found = {"float16": "found"} if half else {}
    assert record["precision_found"] == found | ({"int8": "found"} if quantized else {})
    assert record["reformats"] == 2 * half


def test_weak_types_keep_float_layers_in_float(
    fake_gpu: FakeGpu, build: Build, tmp_path: Path
) -> None:
    """8.6 would be free to run what the graph leaves in float32 in half."""
    fake_gpu.install("8.6")
    record = build(conv_graph(half=True, float_tail=True))
    head, _ = read_plan((tmp_path / "s.plan").read_bytes())
    assert head["kept"] == ["tail"]
    assert record["layers_kept_in_float32"] == 1
    assert head["sharing"] is True


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("kind", ["half", "quantized"])
def test_precision_that_is_nowhere_is_an_error(
    version: str, kind: str, fake_gpu: FakeGpu, build: Build, tmp_path: Path
) -> None:
    fake_gpu.install(version, Faults(ignore_precision=True))
    wanted = {"half": "float16", "quantized": "int8"}[kind]
    with pytest.raises(
        EngineBuildError, match=rf"got layers by precision .*expected some in {wanted}"
    ):
        build(conv_graph(**{kind: True}))
    assert not (tmp_path / "s.plan").exists()
    fake_gpu.install(version)
    assert build(conv_graph(**{kind: True}))["cache"]["hit"] is False, "it was not kept"


def test_precision_inside_a_fused_layer_is_not_told(fake_gpu: FakeGpu, build: Build) -> None:
    fake_gpu.install("10.16", Faults(opaque=True))
    record = build(conv_graph(half=True))
    assert record["precision_found"] == {"float16": "not told"}
    assert record["layers_fused"] == 1
    fake_gpu.install("8.6", Faults(opaque=True))
    with pytest.raises(EngineBuildError, match="expected some in float16"):
        build(conv_graph(half=True))


@pytest.mark.parametrize("version", ["8.6", "10.16"])
def test_without_cublas_only_own_tactics(
    version: str, fake_gpu: FakeGpu, build: Build, tmp_path: Path
) -> None:
    """The stub driver's folder is all that the child's loader is told of."""
    fake_gpu.install(version)
    record = build()
    head, _ = read_plan((tmp_path / "s.plan").read_bytes())
    if version == "8.6" and record["missing_libraries"]:
        assert record["tactic_sources"] == ["EDGE_MASK_CONVOLUTIONS", "JIT_CONVOLUTIONS"]
        assert head["sources"] == 0b11000
    else:
        assert record["tactic_sources"] == "default"
        assert head["sources"] is None


def test_cache_hit_builds_nothing(fake_gpu: FakeGpu, build: Build, tmp_path: Path) -> None:
    first = build()
    plan = (tmp_path / "s.plan").read_bytes()
    (tmp_path / "s.plan").unlink()
    fake_gpu.install(faults=Faults(build_exits=9))  # a build would fail
    texts: list[str] = []
    second = build(on_progress=texts.append)
    assert second["cache"] == {"key": first["cache"]["key"], "hit": True}
    assert {**second, "cache": None} == {**first, "cache": None}
    assert (tmp_path / "s.plan").read_bytes() == plan
    assert texts == ["s: found in the cache"]


@pytest.mark.parametrize(
    "change",
    [
        {"optimization_level": 5},
        {"tf32": True},
        {"timing_iterations": 4},
        {"hardware_compatibility": "ampere_plus"},
        {"profiles": [ONE]},
        {"graph": conv_graph(half=True)},
    ],
)
def test_what_changes_the_engine_misses_the_cache(change: dict[str, Any], build: Build) -> None:
    first = build()["cache"]["key"]
    again = build(**change)
    assert again["cache"]["hit"] is False
    assert again["cache"]["key"] != first


def test_another_version_or_gpu_misses_the_cache(fake_gpu: FakeGpu, build: Build) -> None:
    keys = {build()["cache"]["key"]}
    fake_gpu.install("11.4")
    keys.add(build()["cache"]["key"])
    assert len(keys) == 2
    assert build(device=1)["cache"]["hit"] is True, "an equal card shares the engine"
    assert build(timeout_s=LIMIT_S)["cache"]["hit"] is True, "how long to wait is no part of it"


def test_damaged_cache_entry_is_built_again(fake_gpu: FakeGpu, build: Build) -> None:
    key = build()["cache"]["key"]
    plan = fake_gpu.cache / "engines" / f"{key}.plan"
    data = bytearray(plan.read_bytes())
    data[len(data) // 2] ^= 1
    plan.write_bytes(data)
    assert build()["cache"] == {"key": key, "hit": False}
    assert build()["cache"] == {"key": key, "hit": True}


def test_cache_that_cannot_keep_it_loses_no_engine(
    build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise tensorrt.BackendError("engine cache: got a full disk, expected room.")

    monkeypatch.setattr(tensorrt.EngineCache, "store", full)
    assert build()["cache"]["hit"] is False
    assert (tmp_path / "s.plan").stat().st_size > 0
    assert "engine s is not kept for the next build: engine cache: got a full disk" in caplog.text


@pytest.mark.parametrize("version", VERSIONS)
def test_timing_cache_is_used_by_the_next_build(
    version: str, fake_gpu: FakeGpu, build: Build
) -> None:
    fake_gpu.install(version)
    first, second = build(), build(optimization_level=4)
    assert (first["timing_cache_used"], second["timing_cache_used"]) == (False, True)
    assert first["timing_cache_kept"]
    (file,) = (fake_gpu.cache / "timing").glob("*.cache")
    assert file.name == f"{VERSIONS[version]}-Stand-in-GPU.cache"
    known = json.loads(file.read_bytes()[32:])
    assert known["device"] == "Fake GPU"
    assert len(known["known"]) == 3


@pytest.mark.parametrize("damage", ["flip", "short", "foreign"])
def test_damaged_timing_cache_is_ignored_and_written_anew(
    damage: str, fake_gpu: FakeGpu, build: Build
) -> None:
    build()
    (file,) = (fake_gpu.cache / "timing").glob("*.cache")
    data = file.read_bytes()
    if damage == "foreign":
        fake_gpu.install(device="Another GPU")  # the driver tells the old name
    else:
        file.write_bytes(data[:20] if damage == "short" else data[:-1] + b"!")
    record = build(optimization_level=4)
    assert record["timing_cache_used"] is False
    assert len(json.loads(file.read_bytes()[32:])["known"]) == 3


def test_all_parser_errors_are_shown(fake_gpu: FakeGpu, build: Build) -> None:
    errors = [("UNSUPPORTED_NODE", 0, "no importer"), ("INVALID_NODE", 2, "bad pads")]
    fake_gpu.install("10.16", Faults(parse_errors=errors))
    with pytest.raises(EngineBuildError) as caught:
        build()
    text = str(caught.value)
    assert "got 2 error(s) from the parser of TensorRT 10.16.1.11" in text
    assert "node conv0 Conv: UNSUPPORTED_NODE: no importer" in text
    assert "node conv1 Conv: INVALID_NODE: bad pads" in text
    assert "does not support Conv." in text
    fake_gpu.install("8.6", Faults(parse_errors=errors))
    with pytest.raises(EngineBuildError, match="node number 2 : INVALID_NODE: bad pads"):
        build()


@pytest.mark.parametrize("version", VERSIONS)
def test_no_plan_quotes_the_log(version: str, fake_gpu: FakeGpu, build: Build) -> None:
    says = "Could not find any implementation for node conv0."
    fake_gpu.install(version, Faults(build_says=says, warning="hm"))
    with pytest.raises(EngineBuildError) as caught:
        build()
    text = str(caught.value)
    assert f"engine s: got no plan from TensorRT {VERSIONS[version]}, expected one" in text
    assert f"TensorRT says: warning: hm | error: {says}" in text


@pytest.mark.parametrize(
    ("faults", "kind"),
    [
        (Faults(build_says="[defaultAllocator] Cuda error 2: out of memory"), OutOfMemoryError),
        (Faults(no_context="CUDA_ERROR_OUT_OF_MEMORY"), OutOfMemoryError),
        (Faults(build_says="no tactic", warning="tactic skipped: out of memory"), EngineBuildError),
        (Faults(deserialize_says="version tag does not match"), EngineLoadError),
        (Faults(starts=False), EngineBuildError),
    ],
)
def test_kinds_of_failure(
    faults: Faults, kind: type[ParnetDeployError], fake_gpu: FakeGpu, build: Build
) -> None:
    fake_gpu.install(faults=faults)
    with pytest.raises(kind) as caught:
        build()
    assert type(caught.value) is kind


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL, signal.SIGABRT])
def test_a_crash_of_the_child_is_an_error(
    number: signal.Signals, fake_gpu: FakeGpu, build: Build, tmp_path: Path
) -> None:
    fake_gpu.install(faults=Faults(build_kills=int(number), warning="last words"))
    with pytest.raises(EngineBuildError) as caught:
        build()
    text = str(caught.value)
    assert f"got a child process ended by {number.name}, expected a plan" in text
    assert "TensorRT says: warning: last words." in text
    assert ("want of memory" in text) is (number is signal.SIGKILL)
    assert not (tmp_path / "s.plan").exists()
    fake_gpu.install()
    assert build()["cache"]["hit"] is False


def test_an_exit_of_the_child_is_an_error(fake_gpu: FakeGpu, build: Build) -> None:
    fake_gpu.install(faults=Faults(build_exits=7))
    with pytest.raises(EngineBuildError, match="a child process that ended with status 7"):
        build()


def test_a_bug_in_the_child_shows_its_last_words(fake_gpu: FakeGpu, build: Build) -> None:
    fake_gpu.break_import("raise RuntimeError('not what was thought')")
    with pytest.raises(EngineBuildError, match=r"last words: .*not what was thought"):
        build()


def test_a_hang_is_ended(
    fake_gpu: FakeGpu, build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child, "GRACE_S", 0.1)
    fake_gpu.install(faults=Faults(build_hangs=True))
    with pytest.raises(EngineBuildError, match=r"got no plan within 3 s, expected a plan"):
        build(timeout_s=3)
    assert not (tmp_path / "s.plan").exists()


def test_an_interrupt_ends_the_child(
    fake_gpu: FakeGpu, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Ctrl-C would: the build hangs, and the exception comes in the middle of it."""
    monkeypatch.setattr(child, "GRACE_S", 0.1)
    started: list[subprocess.Popen[bytes]] = []
    popen = subprocess.Popen

    def noticing(*args: Any, **options: Any) -> Any:
        started.append(popen(*args, **options))
        return started[-1]

    monkeypatch.setattr(child.subprocess, "Popen", noticing)
    fake_gpu.install(faults=Faults(build_hangs=True))

    def interrupt(text: str) -> None:
        if text.endswith("100 %"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(on_progress=interrupt)
    (process,) = started
    assert process.returncode is not None
    fake_gpu.install()
    assert build()["cache"]["hit"] is False, "the key is free again"


def test_elapsed_time_where_nothing_is_reported(
    fake_gpu: FakeGpu, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    """8.6 tells no progress. The silent build is ended by the first text of its time."""
    monkeypatch.setattr(child, "GRACE_S", 0.1)
    monkeypatch.setattr(child, "IDLE_S", 0.1)
    fake_gpu.install("8.6", Faults(build_hangs=True))

    def stop(text: str) -> None:
        if text.endswith(" s so far"):
            raise KeyboardInterrupt(text)

    with pytest.raises(KeyboardInterrupt, match=r"^s: \d+ s so far$"):
        build(on_progress=stop)


def test_one_key_is_built_once_by_two_at_once(
    fake_gpu: FakeGpu, build: Build, tmp_path: Path
) -> None:
    def one(name: str) -> dict[str, Any]:
        output = tmp_path / f"{name}.plan"
        return build_engine(conv_graph(), output, name=name, device=0, profiles=[ONE, MANY])

    with ThreadPoolExecutor(2) as pool:
        records = list(pool.map(one, "ab"))
    assert sorted(record["cache"]["hit"] for record in records) == [False, True]
    assert (tmp_path / "a.plan").read_bytes() == (tmp_path / "b.plan").read_bytes()


def test_missing_tensorrt_names_the_extra(fake_gpu: FakeGpu, build: Build) -> None:
    fake_gpu.remove()
    with pytest.raises(MissingExtraError, match=r"package tensorrt: not installed.*\[gpu\]"):
        build()


def test_no_driver(fake_gpu: FakeGpu, build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LD_LIBRARY_PATH")
    fake_gpu.remove_driver()
    if has_driver():
        pytest.skip("needs a machine without NVIDIA's driver")
    with pytest.raises(DeviceUnavailableError, match=r"TensorRT 10.16.1.11: got no usable GPU"):
        build()


def has_driver() -> bool:
    script = "from parnet_deploy.machine.gpus import probe_gpus; print(probe_gpus()[0])"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    return done.stdout.strip() != "0"


def test_no_such_gpu(build: Build) -> None:
    with pytest.raises(
        DeviceUnavailableError, match="GPU 5: got no such device, expected one of those here"
    ):
        build(device=5)


@pytest.mark.parametrize(
    ("code", "kind", "text"),
    [
        (2, OutOfMemoryError, "device 0.*CUDA_ERROR_OUT_OF_MEMORY"),
        (46, DeviceUnavailableError, "device 0.*CUDA_ERROR_DEVICE_UNAVAILABLE"),
    ],
)
def test_no_context(
    code: int, kind: type[ParnetDeployError], text: str, fake_gpu: FakeGpu, build: Build
) -> None:
    fake_gpu.set_driver_error(code)
    with pytest.raises(kind, match=text):
        build()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"optimization_level": 6}, "optimization level: got 6, expected 0 to 5"),
        ({"aux_streams": -1}, "aux streams: got -1"),
        ({"workspace_mib": 0}, "workspace MiB: got 0"),
        ({"timing_iterations": 0}, "timing iterations: got 0"),
        ({"timeout_s": 0}, "timeout: got 0 s"),
        ({"hardware_compatibility": "all"}, "hardware compatibility: got 'all', expected one of"),
        ({"profiles": []}, "profiles of engine s: got none"),
    ],
)
def test_bad_options(options: dict[str, Any], text: str, build: Build) -> None:
    with pytest.raises(SpecError, match=text):
        build(**options)


def test_a_level_that_this_version_lacks(fake_gpu: FakeGpu, build: Build) -> None:
    fake_gpu.install("8.6")
    with pytest.raises(EngineBuildError, match="expected one of ampere_plus, none"):
        build(hardware_compatibility="same_compute_capability")


@pytest.mark.parametrize("data", [b"", b"not a model", b"\x08\x08"])
def test_not_a_graph(data: bytes, build: Build) -> None:
    with pytest.raises(EngineBuildError, match=r"graph of engine s: got .*expected an ONNX model"):
        build(data)


def test_output_that_cannot_be_written(fake_gpu: FakeGpu, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.touch()
    with pytest.raises(EngineBuildError, match="expected room for an engine"):
        build_engine(conv_graph(), blocked / "s.plan", name="s", device=0, profiles=[ONE])


def test_this_process_imports_no_tensorrt(build: Build) -> None:
    build()
    assert not {"tensorrt", "tensorrt_bindings"} & set(sys.modules)
    script = "import parnet_deploy.builder.tensorrt.engine, sys; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert not {"tensorrt", "cuda", "torch"} & loaded


def test_parnet_segments_build_with_both_profiles(
    exported_once: Path, fake_gpu: FakeGpu, tmp_path: Path
) -> None:
    """A whole exported network, one engine a stream, and what the engines' tensors are then."""
    import onnx

    from parnet_deploy.builder.onnx_merge import merge_segment
    from parnet_deploy.builder.tensorrt.profiles import segment_profiles
    from parnet_deploy.deployment import Deployment
    from parnet_deploy.placement import streams

    deployment = Deployment.open(exported_once)
    spec, size = deployment.spec, deployment.input_size
    assert size is not None
    parts = {
        part.name: onnx.load_from_string(deployment.read_bytes(f"onnx/{part.name}.onnx"))
        for part in spec.parts
    }
    for segment in streams(spec).segments:
        graph = merge_segment(segment, spec, parts).SerializeToString(deterministic=True)
        profiles = segment_profiles(segment, spec, size, max_batch=8)
        output = tmp_path / f"{segment.name}.plan"
        record = build_engine(graph, output, name=segment.name, device=0, profiles=profiles)
        inputs = [t for t in record["tensors"] if t["is_input"]]
        assert [t["name"] for t in inputs] == list(segment.inputs)
        assert {t["name"] for t in record["tensors"]} == {*segment.inputs, *segment.outputs}
        for tensor in inputs:
            shape = list(spec.tensors[tensor["name"]].shape(*size.high))
            assert tensor["profiles"] == [
                [[1, *shape]] * 3,
                [[2, *shape], [8, *shape], [8, *shape]],
            ]


def test_the_fake_engine_computes(fake_gpu: FakeGpu, build: Build, tmp_path: Path) -> None:
    """What a build leaves behind runs, through the calls that the runtime will make."""
    from parnet_deploy.runtime.onnxruntime.cpu import run_once
    from parnet_deploy.runtime.tensorrt.compat import (
        load_engine,
        make_context,
        make_runtime,
        scratch_bytes,
        set_profile,
        set_scratch,
    )
    from tests.stubs.fake_tensorrt import fake_tensorrt

    graph = conv_graph(half=True)
    build(graph)
    trt = fake_tensorrt("10.16")
    engine = load_engine(trt, make_runtime(trt), (tmp_path / "s.plan").read_bytes(), name="s")
    context = make_context(trt, engine)
    x = np.random.default_rng(1).normal(size=(3, *SIZE)).astype(np.float32)
    y = np.full_like(x, np.nan)
    scratch = np.zeros(scratch_bytes(engine) + 256, np.uint8)
    set_scratch(context, -(-scratch.ctypes.data // 256) * 256, scratch_bytes(engine))
    set_profile(context, 1, 7)
    assert context.set_input_shape("x", x.shape)
    assert tuple(context.get_tensor_shape("y")) == y.shape
    assert context.set_tensor_address("x", x.ctypes.data)
    assert context.set_tensor_address("y", y.ctypes.data)
    assert context.execute_async_v3(7)
    np.testing.assert_array_equal(y, run_once(graph, {"x": x})["y"])


def test_child_dies_with_its_parent(fake_gpu: FakeGpu, tmp_path: Path) -> None:
    """The parent is killed in the middle of a build that hangs; the kernel ends the child."""
    fake_gpu.install(faults=Faults(build_hangs=True))
    script = """
import os, sys
from pathlib import Path
from parnet_deploy.builder import child
from parnet_deploy.builder.tensorrt.engine import build_engine
from tests.builder.test_tensorrt import ONE
from tests.builder.trt_graphs import conv_graph
popen = child.subprocess.Popen
def noticing(*args, **options):
    process = popen(*args, **options)
    print(process.pid, flush=True)
    return process
child.subprocess.Popen = noticing
def ready(text):
    if text.endswith("100 %"):
        print("hangs", flush=True)
build_engine(conv_graph(), Path(sys.argv[1]), name="s", device=0, profiles=[ONE], on_progress=ready)
"""
    command = [sys.executable, "-c", script, str(tmp_path / "s.plan")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert parent.stdout.readline() == "hangs\n"
        handle = os.pidfd_open(pid)
        parent.kill()
    import select

    ready, _, _ = select.select([handle], [], [], LIMIT_S)
    os.close(handle)
    assert ready, "the child still runs"


def test_the_child_finds_the_package_where_the_parent_does() -> None:
    root = child._environment()["PYTHONPATH"].split(os.pathsep)[-1]
    assert (Path(root) / "parnet_deploy" / "__init__.py").is_file()
    assert not (Path(root) / "spec.py").exists()
