"""``build.json``: round trip, and precise refusals."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parnet_deploy.errors import DeploymentCorruptError, DeploymentError
from parnet_deploy.input_size import InputSize
from parnet_deploy.placement import one, streams
from parnet_deploy.plan import Plan, asked_backend
from parnet_deploy.spec import RELEASED

SIZE = InputSize(low=(224, 224), high=(224, 224))


def make_plan(**changes) -> Plan:
    placement = changes.pop("placement", streams(RELEASED["parnet-s"]))
    fields = {
        "backend": "onnxruntime",
        "placement": placement,
        "input_size": SIZE,
        "max_batch": 4,
        "engines": {segment.name: f"{segment.name}.onnx" for segment in placement.segments},
        **changes,
    }
    return Plan(**fields)


@given(
    batch=st.integers(1, 64),
    threads=st.none() | st.integers(1, 64),
    median=st.none() | st.floats(0.01, 1e4),
    whole=st.booleans(),
)
def test_a_plan_survives_json(batch, threads, median, whole):
    placement = (one if whole else streams)(RELEASED["parnet-l"])
    plan = make_plan(
        placement=placement,
        max_batch=batch,
        threads=threads,
        measured={"median_ms": median, "table": [1, 2]},
        made={"tolerance": 1e-4},
    )
    again = Plan.from_json(json.loads(json.dumps(plan.to_json())))
    assert again == plan
    assert again.median_ms == median


def test_every_field_is_written_and_every_field_is_needed():
    data = make_plan().to_json()
    for key in data:
        rest = {name: value for name, value in data.items() if name != key}
        with pytest.raises(DeploymentError, match=r"plan(, key|: got schema version None)"):
            Plan.from_json(rest)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backend": 3}, "key backend: got 3, expected a string"),
        ({"placement": {}}, "key placement: placement: cannot read it"),
        ({"placement": []}, r"key placement: got \[\], expected an object"),
        ({"precision": "fp7"}, "key precision: got fp7, expected one of fp32"),
        ({"input_size": {"low": [1]}}, "key input_size: input size: cannot read it"),
        ({"max_batch": 0}, "key max_batch: got 0, expected 1 to 65536"),
        ({"max_batch": 65537}, "key max_batch: got 65537, expected 1 to 65536"),
        ({"max_batch": True}, "key max_batch: got True, expected an integer"),
        ({"max_batch": 1.5}, "key max_batch: got 1.5, expected an integer"),
        ({"threads": 0}, "key threads: got 0, expected 1 to 1024, or null"),
        ({"threads": 1025}, "key threads: got 1025, expected 1 to 1024, or null"),
        ({"engines": {"stem0": "a"}}, r"key engines: got \['stem0'\], expected one for each of"),
        ({"engines": {"stem0": 1}}, "key engines: got .* expected a string"),
        ({"measured": None}, "key measured: got None, expected an object"),
        ({"extra": 1}, r"key keys: got \['extra'\], expected only"),
    ],
)
def test_a_wrong_field_is_named(changes, message):
    with pytest.raises(DeploymentCorruptError, match=f"plan, {message}.*Run: parnet-deploy build"):
        Plan.from_json({**make_plan().to_json(), **changes})


@pytest.mark.parametrize("name", ["../x.onnx", "a/b.onnx", "/x.onnx", "a\\b", "..", "", "."])
def test_an_engine_outside_of_the_plan_is_refused(name):
    data = make_plan(placement=one(RELEASED["parnet-s"])).to_json()
    with pytest.raises(DeploymentCorruptError, match="expected a file name without a folder"):
        Plan.from_json({**data, "engines": {"all": name}})


def test_another_schema_version_is_not_called_corrupt():
    with pytest.raises(DeploymentError, match="got schema version 2, expected 1") as caught:
        Plan.from_json({**make_plan().to_json(), "schema_version": 2})
    assert not isinstance(caught.value, DeploymentCorruptError)
    with pytest.raises(DeploymentError, match="got schema version 9"):
        make_plan(schema_version=9)


def test_something_else_than_an_object():
    with pytest.raises(DeploymentCorruptError, match="got list, expected a JSON object"):
        Plan.from_json([])


@pytest.mark.parametrize("value", [10**400, float("inf"), float("nan"), "1", None])
def test_a_median_that_is_no_number_is_none(value):
    median = make_plan(measured={"median_ms": value}).median_ms
    assert median is None or median != median  # nan stays nan


def test_a_mixed_plan_names_the_backend_of_each_segment():
    names = [segment.name for segment in streams(RELEASED["parnet-s"]).segments]
    homes = {name: "ncnn" if name == "stream0" else "openvino" for name in names}
    plan = make_plan(backend="mixed", backends=homes)
    assert Plan.from_json(json.loads(json.dumps(plan.to_json()))) == plan
    assert "backends" not in make_plan().to_json()  # which older versions can read


@pytest.mark.parametrize(
    ("backend", "backends", "expected"),
    [
        ("mixed", {}, "one for each of"),
        ("mixed", {"head": "openvino"}, "one for each of"),
        ("openvino", {"head": "openvino"}, "expected none"),
    ],
)
def test_backends_belong_to_mixed_plans(backend, backends, expected):
    with pytest.raises(DeploymentCorruptError, match=expected):
        make_plan(backend=backend, backends=backends)


def test_every_segment_has_a_home():
    plan = make_plan(backend="mnn")
    assert plan.homes == dict.fromkeys(plan.engines, "mnn")
    homes = {**plan.homes, "head": "openvino"}
    assert make_plan(backend="mixed", backends=homes).homes == homes


@pytest.mark.parametrize(
    ("key", "backend", "asked"),
    [
        ("onnxruntime-fp32-one", "onnxruntime", "onnxruntime"),
        ("auto-fp32-auto", "mnn", "auto"),
        ("auto-int8-auto", "mixed", "auto"),
        ("trt", "mixed", "auto"),
    ],
)
def test_what_build_is_to_be_asked_for_again(key, backend, asked):
    assert asked_backend(key, backend) == asked
