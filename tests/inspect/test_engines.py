"""Engines of each plan."""

from __future__ import annotations

import hashlib
import json

from parnet_deploy.inspect.engines import find_engines
from tests.inspect.deployments import PLAN, damage, make, mixed, on_gpus, plan


def test_one_engine_on_the_cpu(tmp_path):
    deployment = make(tmp_path / "d", plans={PLAN: (plan(threads=2), "export")})
    found = find_engines(deployment, PLAN)
    assert (found.backend, found.threads, found.max_batch) == ("onnxruntime", 2, 4)
    content = f"{PLAN} all.onnx".encode()
    (engine,) = found.engines
    assert engine.parts == tuple(part.name for part in deployment.spec.parts)
    assert engine.bytes == len(content)
    assert engine.sha256 == hashlib.sha256(content).hexdigest()
    assert engine.layers is None
    assert (engine.backend, engine.converter) == ("onnxruntime", None)


def test_engines_of_a_mix_have_backends_of_their_own(tmp_path):
    found = find_engines(make(tmp_path / "d", plans={"auto": (mixed(), "export")}), "auto")
    assert found.backend == "mixed"
    homes = {engine.segment: engine.backend for engine in found.engines}
    assert homes == mixed().backends
    told = {engine.segment for engine in found.engines if engine.converter is not None}
    assert told == {name for name, home in homes.items() if home == "openvino"}
    first, *_ = json.loads(json.dumps(found.to_json()))["engines"]
    assert first["backend"] == homes[first["segment"]]


def test_engines_come_by_device_and_lane_with_what_tensorrt_made(tmp_path):
    built = on_gpus()
    found = find_engines(make(tmp_path / "d", plans={"gpu": (built, "export")}), "gpu")
    places = [(engine.device, engine.lane) for engine in found.engines]
    assert places == sorted(places)
    assert {engine.device for engine in found.engines} == {0, 1}
    expected = {segment.name: segment.device for segment in built.placement.segments}
    assert {engine.segment: engine.device for engine in found.engines} == expected
    assert found.engines[0].layers == {"float16": 7, "float32": 2}
    assert json.loads(json.dumps(found.to_json()))["engines"][0]["device"] == 0


def test_a_damaged_plan_says_so(tmp_path):
    deployment = make(tmp_path / "d", plans={PLAN: (plan(), "export")})
    damage(deployment, f"plans/{PLAN}/build.json")
    found = find_engines(deployment, PLAN)
    assert found.engines == ()
    assert "build.json" in found.error
    assert "it was changed" in found.error


def test_an_engine_that_was_removed_has_no_size(tmp_path):
    deployment = make(tmp_path / "d", plans={PLAN: (plan(), "export")})
    with deployment.edit(deployment.path) as txn:
        txn.remove(f"plans/{PLAN}/all.onnx")
    (engine,) = find_engines(deployment.open(deployment.path), PLAN).engines
    assert (engine.bytes, engine.sha256) == (None, None)


def test_layers_that_are_no_counts_are_left_out(tmp_path):
    odd = {"engines": {"all": {"layers": {"float16": 3, "int8": "many", "float32": True}}}}
    deployment = make(tmp_path / "d", plans={PLAN: (plan(made=odd), "export")})
    assert find_engines(deployment, PLAN).engines[0].layers == {"float16": 3}
