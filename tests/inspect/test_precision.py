"""Precision of each layer of a plan."""

from __future__ import annotations

import pytest

from parnet_deploy.inspect.precision import find_precision
from tests.inspect.deployments import PLAN, damage, make, plan

LAYERS = [
    {"layer": "inits.0.0", "part": "stem0", "precision": "fp32", "macs": 9, "reason": "put back"},
    {"layer": "inits.0.1", "part": "stem0", "precision": "int8", "macs": 5, "reason": None},
    {"layer": "head", "part": "head", "precision": "int8", "macs": 2, "reason": None},
]
REPORT = {"layers": LAYERS, "low_share": 0.4375}
KEY = "onnxruntime-int8-one"


@pytest.fixture
def lowered(tmp_path):
    other = {"layers": [{**row, "precision": "int8"} for row in LAYERS], "low_share": 1.0}
    return make(
        tmp_path / "d",
        reports={"quantize:int8-cpu": REPORT, "quantize:int8-trt": other},
        plans={
            PLAN: (plan(), "export"),
            KEY: (plan(precision="int8"), "quantize:int8-cpu"),
            "trt": (plan("tensorrt", precision="int8"), "quantize:int8-trt"),
        },
    )


def test_float32_has_nothing_to_tell(lowered):
    assert find_precision(lowered, PLAN) is None


def test_layers_come_from_the_graphs_that_the_plan_was_built_of(lowered):
    found = find_precision(lowered, KEY)
    assert (found.target, found.low_share) == ("int8-cpu", 0.4375)
    assert found.counts == {"fp32": 1, "int8": 2}
    assert found.kept == ("inits.0.0",)
    assert [layer.reason for layer in found.layers] == ["put back", None, None]
    assert found.to_json()["counts"] == {"fp32": 1, "int8": 2}
    other = find_precision(lowered, "trt")
    assert (other.target, other.kept, other.low_share) == ("int8-trt", (), 1.0)


def test_bfloat16_has_the_graphs_of_float32(tmp_path):
    key = "openvino-bf16-one"
    deployment = make(tmp_path / "d", plans={key: (plan("openvino", precision="bf16"), "export")})
    found = find_precision(deployment, key)
    assert (found.precision, found.target, found.layers) == ("bf16", "fp32", ())
    assert found.low_share is None, "which products are rounded is the backend's business"


def test_without_a_report_nothing_is_claimed(lowered):
    damage(lowered, "reports/precision-int8-cpu.json")
    found = find_precision(lowered, KEY)
    assert (found.precision, found.target) == ("int8", "int8-cpu")
    assert (found.layers, found.counts, found.low_share) == ((), {}, None)
