"""What differs between two deployments."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from parnet_deploy.inspect.diff import compare_deployments
from tests.inspect.deployments import (
    PLAN,
    SPEC,
    check,
    copy,
    damage,
    make,
    plan,
    reseal,
    weights,
)

FUSE = {"proof": {"float64": check(1e-15, 1e-10), "float32": check(2e-7, 1e-5)}}
KEY = "onnxruntime-int8-one"


def layers(*kept):
    """A report of two layers, of which some stayed in float32."""
    rows = [
        {"layer": name, "part": "stem0", "precision": "fp32" if name in kept else "int8"}
        for name in ("inits.0.0", "inits.0.1")
    ]
    return {"layers": rows, "checks": [{"passed": True}]}


def whole(directory, *, kept=("inits.0.0",), **changes):
    given = {
        "reports": {"fuse": FUSE, "quantize:int8-cpu": layers(*kept)},
        "plans": {
            PLAN: (plan(), "export"),
            KEY: (plan(precision="int8"), "quantize:int8-cpu"),
        },
    }
    return make(directory, **{**given, **changes})


def told(first, second):
    return [(d.group, d.name, d.change) for d in compare_deployments(first, second)]


def test_a_copy_is_identical(tmp_path):
    first = whole(tmp_path / "a")
    assert compare_deployments(first, copy(first, tmp_path / "b")) == []


def test_made_again_with_the_same_content_is_identical_but_for_the_date(tmp_path):
    first, second = whole(tmp_path / "a"), whole(tmp_path / "b")
    assert first.digest != second.digest
    assert compare_deployments(first, second) == []


def test_one_block_of_the_weights(tmp_path):
    changed = weights()
    changed["inits.1.conv.bias"] = changed["inits.1.conv.bias"] + np.float32(1)
    first, second = whole(tmp_path / "a"), whole(tmp_path / "b", tensors=changed)
    found = compare_deployments(first, second)
    assert [(d.group, d.name, d.change) for d in found] == [
        ("weights", "inits.1", "changed"),
        ("files", "fused.safetensors", "changed"),
    ]
    assert found[0].detail.startswith("by ")
    assert found[1].before == first.artifacts["fused.safetensors"]["sha256"]
    assert json.loads(json.dumps([d.to_json() for d in found]))[0]["group"] == "weights"


def test_what_is_on_one_side_only_is_added_or_removed(tmp_path):
    first = whole(tmp_path / "a")
    second = whole(tmp_path / "b", plans={PLAN: (plan(), "export")})
    gone = [
        ("steps", f"build:{KEY}"),
        ("plans", KEY),
        ("precision", f"{KEY} inits.0.0"),
        ("precision", f"{KEY} inits.0.1"),
        ("evidence", f"build {KEY} engines against graphs"),
        ("files", f"plans/{KEY}/all.onnx"),
        ("files", f"plans/{KEY}/build.json"),
    ]
    assert told(first, second) == [(*what, "removed") for what in gone]
    assert told(second, first) == [(*what, "added") for what in gone]
    assert all(d.before is None and d.after for d in compare_deployments(second, first)[1:4])


def test_another_precision_of_a_layer(tmp_path):
    first, second = whole(tmp_path / "a"), whole(tmp_path / "b", kept=())
    (layer,) = [d for d in compare_deployments(first, second) if d.group == "precision"]
    assert (layer.name, layer.before, layer.after) == (f"{KEY} inits.0.0", "fp32", "int8")


def test_other_evidence(tmp_path):
    worse = {"proof": {"float64": check(3e-13, 1e-10), "float32": check(2e-7, 1e-5)}}
    reports = {"fuse": worse, "quantize:int8-cpu": layers("inits.0.0")}
    first, second = whole(tmp_path / "a"), whole(tmp_path / "b", reports=reports)
    (found,) = [d for d in compare_deployments(first, second) if d.group == "evidence"]
    assert found.name == "fuse fused against trained, float64"
    assert (found.before["error"], found.after["error"]) == (1e-15, 3e-13)


def test_figures_of_a_benchmark_are_compared_one_by_one(tmp_path):
    def timed(value):
        p50 = {"value": value, "low": 1.0, "high": 3.0}
        ours = {"check": {"passed": True}, "modes": {"paced": {"quantiles_ms": {"p50": p50}}}}
        rival = {"modes": {"paced": {"ratio_to_ours": {"value": 6.0 / value}}}}
        return {"bench": {"arms": {"parnet-deploy": ours, "torch": rival}}}

    first, second = (make(tmp_path / f"d{v}", reports=timed(v)) for v in (2.0, 1.5))
    (found,) = [d for d in compare_deployments(first, second) if d.group == "evidence"]
    assert found.name == "bench latency, its output checked first"
    same = {"passed": True, "paced low": 1.0, "paced high": 3.0}
    assert found.before == {**same, "paced median_ms": 2.0, "paced ratios torch": 3.0}
    assert found.after == {**same, "paced median_ms": 1.5, "paced ratios torch": 4.0}


def test_another_network(tmp_path):
    first = make(tmp_path / "a")
    other = replace(SPEC, activation="relu")
    found = told(first, make(tmp_path / "b", spec=other))
    assert found == [("network", "activation", "changed")]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda m: m["source"].update(sha256="0" * 64), ("checkpoint", "sha256", "added")),
        (lambda m: m.update(preprocessing={"height": 32}), ("images", "height", "added")),
        (lambda m: m.update(labels=list("abcde")), ("images", "label 0", "added")),
        (lambda m: m.update(input_size=None), ("images", "input size", "changed")),
        (lambda m: m["steps"]["export"].update(key="other"), ("steps", "export", "changed")),
        (
            lambda m: m["steps"]["export"]["options"].update(size="64"),
            ("steps", "export", "changed"),
        ),
        (
            lambda m: m["steps"]["export"]["versions"].update(onnx="1.0"),
            ("steps", "export", "changed"),
        ),
        (lambda m: m["plans"][PLAN].update(threads=3), ("plans", PLAN, "changed")),
    ],
)
def test_every_field_counts(tmp_path, change, expected):
    first = whole(tmp_path / "a")
    second = reseal(copy(first, tmp_path / "b").path, change)
    assert told(first, second)[0] == expected


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.update(written="2020-01-01T00:00:00+00:00"),
        lambda m: m["steps"]["fuse"].update(finished="2020-01-01T00:00:00+00:00"),
        lambda m: m["plans"][PLAN].update(built="2020-01-01T00:00:00+00:00"),
    ],
)
def test_dates_do_not_count(tmp_path, change):
    first = whole(tmp_path / "a")
    second = reseal(copy(first, tmp_path / "b").path, change)
    assert first.digest != second.digest
    assert told(first, second) == []


def test_weights_that_cannot_be_read_are_said_not_to_be_compared(tmp_path):
    first = make(tmp_path / "a")
    second = make(tmp_path / "b", tensors={"a.b": np.zeros(1, np.float32)})
    damage(second, "fused.safetensors")
    found = compare_deployments(first, second)[0]
    assert (found.group, found.name) == ("weights", "fused.safetensors")
    assert found.detail.startswith("not compared: ")
