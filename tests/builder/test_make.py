"""A GPU build, with everything but the GPU: engines are graphs, devices are simulated."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from parnet_deploy import Runtime
from parnet_deploy.builder import engines, gpus, prove
from parnet_deploy.builder.build import BuildOptions, build_to_deployment
from parnet_deploy.deployment import Deployment
from parnet_deploy.errors import CheckFailedError, EngineBuildError
from parnet_deploy.plan import Plan
from parnet_deploy.runtime.backend import BACKENDS
from tests.builder.test_gpus import machine

ORDERS = "orders"


@pytest.fixture
def orders(monkeypatch) -> list[dict]:
    """A machine with three GPUs: TensorRT writes the graph and remembers what it was asked."""
    made: list[dict] = []

    def build_engine(graph, output: Path, *, name, device, profiles, options, on_progress):
        on_progress(f"{name}: building")
        output.write_bytes(graph)
        made.append(
            {
                "name": name,
                "device": device,
                "batches": [
                    (ranges.least[0], ranges.greatest[0]) for p in profiles for ranges in p.values()
                ],
                "options": options.to_json(),
            }
        )
        return {"cache": {"key": name, "hit": False}, "options": options.to_json()}

    machine(monkeypatch, ["9.0"] * 3)
    monkeypatch.setattr(engines, "build_engine", build_engine)
    simulated = replace_entry("tensorrt")
    monkeypatch.setitem(BACKENDS, "tensorrt", simulated)
    return made


def replace_entry(name: str):
    return BACKENDS[name]._replace(where=BACKENDS["fake"].where, extra="cpu")


def test_auto_builds_measures_and_keeps_all_of_it(exported, orders) -> None:
    options = BuildOptions(gpus=(0, 1, 2), optimization_level=5, max_batch=4)
    stages: list[str] = []
    report = build_to_deployment(exported, options, on_stage=stages.append).report
    assert report["plan"] == "tensorrt-fp32-auto-gpus0+1+2"
    rows = report["measured"]["candidates"]
    assert [(row["placement"], row["devices"], row["aux_streams"]) for row in rows] == [
        ("one", [0], 0),
        ("one-aux", [0], 2),
        ("streams", [0], 0),
        ("recompute", [0], 0),
        ("streams", [0, 0, 1], 0),
        ("recompute", [0, 0, 1], 0),
        ("streams", [0, 1, 2], 0),
        ("recompute", [0, 1, 2], 0),
    ]
    assert all(row["median_ms"] > 0 and row["predicted"]["ratio"] > 0 for row in rows)
    assert 0 < report["measured"]["bound"]["ratio"] < 1
    assert {order["options"]["optimization_level"] for order in orders} == {5}
    assert {order["options"]["aux_streams"] for order in orders if order["name"] != "all"} == {0}
    assert [o["options"]["aux_streams"] for o in orders if o["name"] == "all"] == [0, 2]
    assert all(set(order["batches"]) == {(1, 1), (2, 4)} for order in orders)
    assert any("stream0: building" in stage for stage in stages)


def test_the_plan_has_the_records_of_its_engines(exported, orders) -> None:
    options = BuildOptions(gpus=(0, 1, 2), placement="recompute")
    key = build_to_deployment(exported, options).report["plan"]
    raw = Deployment.open(exported).read_bytes(f"plans/{key}/build.json")
    plan = Plan.from_json(json.loads(raw))
    names = {segment.name for segment in plan.placement.segments}
    assert dict(plan.engines) == {name: f"{name}.plan" for name in names}
    assert set(plan.made["engines"]) == names
    assert plan.made["engines"]["stream2"]["cache"] == {"key": "stream2", "hit": False}
    assert plan.made["aux_streams"] == 0
    assert {order["device"] for order in orders} == {0, 1, 2}
    with Runtime.open(exported, backend="tensorrt") as runtime:
        assert runtime.describe()["placement"]["name"] == "recompute"


def test_auxiliary_streams_stand_in_the_plan(exported, orders) -> None:
    report = build_to_deployment(exported, BuildOptions(placement="one-aux", aux_streams=3)).report
    assert report["made"]["aux_streams"] == 3
    (key,) = Deployment.open(exported).plans
    assert Deployment.open(exported).plans[key]["aux_streams"] == 3


def test_a_placement_that_cannot_be_built_is_left_out_with_the_reason(
    exported, orders, monkeypatch
) -> None:
    honest = engines.build_engine

    def fails(graph, output, *, name, **more):
        if name == "stream1":
            raise EngineBuildError("engine stream1: no tactic for a layer.")
        return honest(graph, output, name=name, **more)

    monkeypatch.setattr(engines, "build_engine", fails)
    report = build_to_deployment(exported, BuildOptions(gpus=(0, 1))).report
    rows = report["measured"]["candidates"]
    left = {row["candidate"]: row["left_out"] for row in rows if "left_out" in row}
    assert set(left) == {
        f"{kind}, {where}"
        for kind in ("streams", "recompute")
        for where in ("device 0", "devices 0,0,1")
    }
    assert set(left.values()) == {"engine stream1: no tactic for a layer."}
    assert report["placement"]["name"] == "one"


def test_if_none_can_be_built_the_reason_of_the_simplest_is_raised(
    exported, orders, monkeypatch
) -> None:
    def fails(graph, output, *, name, **more):
        raise EngineBuildError(f"engine {name}: no.")

    monkeypatch.setattr(engines, "build_engine", fails)
    with pytest.raises(EngineBuildError, match="engine all: no"):
        build_to_deployment(exported, BuildOptions(gpus=(0, 1)))
    assert not Deployment.open(exported).plans


def test_an_engine_that_computes_something_else_is_left_out(exported, orders, monkeypatch) -> None:
    honest = prove.verify_engines

    def doubt(spec, plan, files, values, *, tolerance):
        checks = honest(spec, plan, files, values, tolerance=tolerance)
        if plan.placement.name == "one":
            return [replace(checks[0], error=1.0)]
        return checks

    monkeypatch.setattr(prove, "verify_engines", doubt)
    report = build_to_deployment(exported, BuildOptions(gpus=(0,))).report
    assert report["placement"]["name"] in ("streams", "recompute")
    reasons = [row["left_out"] for row in report["measured"]["candidates"] if "left_out" in row]
    assert len(reasons) == 2
    assert all("parity" in reason for reason in reasons)


def test_a_named_placement_that_fails_its_proof_fails_the_build(
    exported, orders, monkeypatch
) -> None:
    honest = prove.verify_engines

    def doubt(*args, **options):
        return [replace(check, error=1.0) for check in honest(*args, **options)]

    monkeypatch.setattr(prove, "verify_engines", doubt)
    with pytest.raises(CheckFailedError):
        build_to_deployment(exported, BuildOptions(gpus=(0,), placement="one"))


def test_rebuild_measures_again_what_has_not_changed(exported, orders) -> None:
    options = BuildOptions(placement="one")
    build_to_deployment(exported, options)
    assert build_to_deployment(exported, options).skipped
    assert not build_to_deployment(exported, replace(options, rebuild=True)).skipped
    assert len(orders) == 2


def test_without_a_gpu_no_gpu_is_asked_for(exported, monkeypatch) -> None:
    monkeypatch.setattr(gpus, "probe_gpus", lambda: (0, "no NVIDIA driver"))
    report = build_to_deployment(exported, BuildOptions(placement="one")).report
    assert report["backend"] == "onnxruntime"
    assert "bound" not in report["measured"]
    (row,) = report["measured"]["candidates"]
    assert row["predicted"] is None
