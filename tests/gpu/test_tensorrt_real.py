"""Builds with the real TensorRT on a real GPU. Nothing is executed here; engines are read back."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import helper

from parnet_deploy.builder.tensorrt.engine import TensorRtOptions, build_engine
from parnet_deploy.builder.tensorrt.engine_cache import EngineCache
from parnet_deploy.builder.tensorrt.profiles import ShapeRange, segment_profiles
from parnet_deploy.errors import EngineBuildError
from parnet_deploy.input_size import InputSize
from parnet_deploy.placement import streams
from tests.builder.trt_graphs import CHANNELS, conv_graph

pytestmark = [pytest.mark.gpu, pytest.mark.tensorrt]

SIZE = (CHANNELS, 16, 16)
ONE = {"x": ShapeRange((1, *SIZE), (1, *SIZE), (1, *SIZE))}
MANY = {"x": ShapeRange((2, *SIZE), (4, *SIZE), (4, *SIZE))}


@pytest.fixture
def cache(tmp_path: Path) -> EngineCache:
    return EngineCache(tmp_path / "cache")


def build(graph: bytes, cache: EngineCache, **options: Any) -> dict[str, Any]:
    return build_engine(
        graph,
        cache.root.parent / "s.plan",
        name="s",
        device=0,
        profiles=[ONE, MANY],
        options=TensorRtOptions(**options),
        cache=cache,
    )


def test_float32(cache: EngineCache) -> None:
    texts: list[str] = []
    record = build(conv_graph(), cache)
    assert record["cache"]["hit"] is False
    assert record["layers"].get("float32", 0) >= 1, record["layers"]
    assert set(record["layers"]) <= {"float32", "unknown"}, "nothing lower was asked for"
    tensors = {tensor["name"]: tensor for tensor in record["tensors"]}
    assert set(tensors) == {"x", "y"}
    assert tensors["x"]["dtype"] == tensors["y"]["dtype"] == "float32"
    assert tensors["x"]["profiles"] == [[list(s) for s in p["x"]] for p in (ONE, MANY)]
    assert record["plan_bytes"] == (cache.root.parent / "s.plan").stat().st_size
    assert record["scratch_bytes"] >= 0
    again = build_engine(
        conv_graph(),
        cache.root.parent / "t.plan",
        name="t",
        device=0,
        profiles=[ONE, MANY],
        cache=cache,
        on_progress=texts.append,
    )
    assert again["cache"]["hit"] is True
    assert texts == ["t: found in the cache"]


@pytest.mark.parametrize(
    ("options", "asked"),
    [({"half": True}, "float16"), ({"quantized": True}, "int8")],
)
def test_precision_of_the_graph_is_there(
    options: dict[str, bool], asked: str, cache: EngineCache
) -> None:
    record = build(conv_graph(**options), cache)
    assert record["precision_found"][asked] in ("found", "not told")
    if record["precision_found"][asked] == "found":
        assert record["layers"].get(asked, 0) >= 1, record["layers"]


def test_timing_cache_is_used(cache: EngineCache) -> None:
    first = build(conv_graph(), cache)
    assert (first["timing_cache_used"], first["timing_cache_kept"]) == (False, True)
    shutil.rmtree(cache.root / "engines")
    second = build(conv_graph(), cache)
    assert second["cache"]["hit"] is False
    assert second["timing_cache_used"] is True


def test_parser_errors_name_the_operator(cache: EngineCache) -> None:
    model = onnx.load_from_string(conv_graph())
    node = model.graph.node[1]
    strange = helper.make_node("NoSuchOperator", node.input, node.output, name="odd", domain="t")
    node.CopyFrom(strange)
    model.opset_import.append(helper.make_opsetid("t", 1))
    with pytest.raises(EngineBuildError, match=r"error\(s\) from the parser") as caught:
        build(model.SerializeToString(), cache)
    assert "NoSuchOperator" in str(caught.value)


def test_plan_that_is_not_its_own_is_refused(cache: EngineCache) -> None:
    """A plan whose head (magic and version) was changed; in a process of its own."""
    build(conv_graph(), cache)
    script = """
import sys
from pathlib import Path
from parnet_deploy.errors import EngineLoadError
from parnet_deploy.runtime.tensorrt.compat import load_engine, load_tensorrt, make_runtime
from parnet_deploy.runtime.cuda.context import CudaContext
CudaContext.open_primary(0).guard().__enter__()
trt = load_tensorrt()
runtime = make_runtime(trt)
plan = Path(sys.argv[1]).read_bytes()
assert load_engine(trt, runtime, plan, name="s").num_io_tensors == 2
try:
    load_engine(trt, runtime, bytes(b ^ 0x55 for b in plan[:64]) + plan[64:], name="s")
except EngineLoadError as error:
    print(error)
"""
    command = [sys.executable, "-c", script, str(cache.root.parent / "s.plan")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "engine s: got a plan that TensorRT" in done.stdout
    assert "TensorRT says: error: " in done.stdout or "internal_error" in done.stdout


def test_segments_of_a_network(cache: EngineCache) -> None:
    """An engine a stream, from the exported parts of a small random ParNet."""
    pytest.importorskip("torch", reason="needs torch (pip install 'parnet-deploy[export]')")
    from parnet_deploy.builder.onnx_merge import merge_segment
    from parnet_deploy.export.fuse import fuse_network
    from parnet_deploy.export.to_onnx import part_to_onnx
    from tests.networks import SPEC, random_state

    size = InputSize(low=(64, 64), high=(64, 64))
    network = fuse_network(random_state(SPEC), SPEC)
    parts = {part.name: part_to_onnx(network, part, size) for part in SPEC.parts}
    for segment in streams(SPEC).segments:
        graph = merge_segment(segment, SPEC, parts).SerializeToString(deterministic=True)
        profiles = segment_profiles(segment, SPEC, size, max_batch=4)
        output = cache.root.parent / f"{segment.name}.plan"
        record = build_engine(
            graph, output, name=segment.name, device=0, profiles=profiles, cache=cache
        )
        assert {t["name"] for t in record["tensors"]} == {*segment.inputs, *segment.outputs}
        assert record["aux_streams"] == 0
