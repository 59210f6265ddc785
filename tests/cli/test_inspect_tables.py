"""The tables of inspect, for what this machine cannot make: several GPUs, lower precision."""

from __future__ import annotations

import pytest
from rich.console import Console

from parnet_deploy.cli.inspect_diff import SHOWN, _change, _draw
from parnet_deploy.cli.inspect_evidence import describe_evidence
from parnet_deploy.cli.inspect_plans import draw_engines, draw_plans, draw_precision
from parnet_deploy.inspect.diff import Difference
from parnet_deploy.inspect.engines import PlanEngines, find_engines
from parnet_deploy.inspect.evidence import Evidence
from parnet_deploy.inspect.precision import LayerPrecision, PlanPrecision
from tests.inspect.deployments import SPEC, make, mixed, on_gpus, plan


def drawn(items, width=80):
    console = Console(width=width, highlight=False)
    with console.capture() as captured:
        for item in items:
            console.print(item)
    lines = captured.get().splitlines()
    assert max(map(len, lines), default=0) <= width
    return " ".join(captured.get().split())


def test_engines_stand_under_their_gpu_with_their_layers(tmp_path):
    deployment = make(tmp_path / "d", plans={"trt": (on_gpus(), "export")})
    text = drawn(draw_engines(SPEC, {"trt": find_engines(deployment, "trt")}), 100)
    assert "engines of trt" in text
    assert text.index("gpu 0") < text.index("gpu 1")
    assert text.count("gpu 0") == text.count("gpu 1") == 1
    count = len(deployment.artifacts) - 3  # the weights and two reports are no engines
    assert text.count("7 float16, 2 float32") == count


def test_a_mix_tells_which_engine_is_on_which_backend(tmp_path):
    deployment = make(tmp_path / "d", plans={"auto-fp32-auto": (mixed(), "export")})
    engines = {"auto-fp32-auto": find_engines(deployment, "auto-fp32-auto")}
    text = drawn(draw_engines(SPEC, engines))
    assert "engines of auto-fp32-auto, converted with openvino 2026.4.1 " in text
    assert "device engine backend parts size sha256" in text
    assert "stream1 openvino stream1 " in text
    assert "fusion1 onnxruntime fusion1 " in text


def test_plans_whose_backend_is_not_here_are_passed_over(tmp_path, monkeypatch):
    plans = {
        "openvino-fp32-one": (plan("openvino"), "export"),
        "auto-fp32-auto": (plan("mnn"), "export"),
        "onnxruntime-fp32-one": (plan(), "export"),
    }
    deployment = make(tmp_path / "d", plans=plans)
    engines = {key: find_engines(deployment, key) for key in plans}
    here = {"onnxruntime", "mnn"}
    monkeypatch.setattr("parnet_deploy.runtime.backend.is_installed", here.__contains__)
    text = drawn(draw_plans(deployment, engines), 120)
    assert "auto-fp32-auto unknown, mnn" in text, "its key does not tell the backend"
    assert (
        "! openvino-fp32-one is passed over: openvino not installed; "
        "pip install 'parnet-deploy[openvino]'"
    ) in text
    marked = [
        row for row in text.split("built")[1].split("✓ runs")[0].split("unknown") if "✓" in row
    ]
    assert len(marked) == 1
    monkeypatch.setattr("parnet_deploy.runtime.backend.is_installed", lambda name: False)
    text = drawn(draw_plans(deployment, engines), 120)
    assert text.count("✓") == 1, "only the legend: none of them runs here"


def test_bfloat16_is_told_without_a_report():
    found = PlanPrecision(precision="bf16", target="fp32", low_share=None, layers=())
    text = drawn(draw_precision({"low": found}, every=True), 120)
    assert "low fp32 products in bf16, where the backend has them unknown" in text


def test_a_plan_that_cannot_be_read_says_why():
    broken = PlanEngines(backend=None, threads=None, max_batch=None, engines=(), error="it is gone")
    assert "✗ it is gone" in drawn(draw_engines(SPEC, {"broken": broken}))


KEPT = LayerPrecision(layer="inits.0.0", part="stem0", precision="fp32", macs=9, reason="put back")
LOWER = PlanPrecision(
    precision="int8",
    target="int8-cpu",
    low_share=0.875,
    layers=(
        LayerPrecision(
            layer="inits.0.0", part="stem0", precision="fp32", macs=9, reason="put back"
        ),
        LayerPrecision(layer="head", part="head", precision="int8", macs=1234, reason=None),
    ),
)


def test_layers_are_counted_and_listed_if_asked_for():
    plans = {"low": LOWER, "full": None}
    short = drawn(draw_precision(plans, every=False))
    assert "low int8-cpu 1 fp32, 1 int8 87.50 % inits.0.0" in short
    assert "put back" not in short
    whole = drawn(draw_precision({**plans, "same graphs": LOWER}, every=True))
    assert "inits.0.0 stem0 fp32 9 put back" in whole
    assert whole.count("1,234") == 1, "graphs of two plans are listed once"


def test_precision_without_a_report_is_unknown():
    found = PlanPrecision(precision="fp16", target=None, low_share=None, layers=())
    text = drawn(draw_precision({"low": found}, every=True))
    assert "low unknown unknown: no report unknown" in text


FIGURES = [
    ("parity", {"error": 0.0, "limit": 1e-4, "compared": 1}, ["error 0 of 1e-04"]),
    (
        "parity",
        {"error": 2e-6, "limit": 1e-4, "compared": 9},
        ["error 2.0e-06 of 1e-04, the worst of 9"],
    ),
    ("gates", {"held": 8, "gates": 9}, ["8 of 9 gates hold"]),
    (
        "gates",
        {"held": 1, "gates": 1, "accuracy": 0.97, "reference_accuracy": 0.98, "agreement": 0.995},
        ["1 of 1 gates hold; accuracy 97.00 %, float32 98.00 %; 99.50 % same answer"],
    ),
    (
        "bench",
        {
            "paced": {"median_ms": 2.0, "low": 1.9, "high": 2.25, "ratios": {"torch": 3.0}},
            "saturated": {"median_ms": 12.0, "low": None, "high": None, "ratios": {}},
        },
        ["paced: 2.00 ms (1.90 to 2.25); torch takes 3.00x", "saturated: 12.0 ms"],
    ),
    ("bench", {}, ["nothing known"]),
]


@pytest.mark.parametrize(("kind", "figures", "expected"), FIGURES)
def test_evidence_in_words(kind, figures, expected):
    item = Evidence(
        step="x", what="y", kind=kind, passed=None, finished="2026-01-02T03:04", figures=figures
    )
    assert describe_evidence(item) == expected


def differences(count):
    return [
        Difference(group="files", name=f"f{i}", change="added", before=None, after="a" * 64)
        for i in range(count)
    ]


def test_long_groups_are_folded_unless_all_are_asked_for():
    short = drawn(_draw(differences(SHOWN + 3), whole=False))
    assert "files: 13" in short
    assert "and 3 more; --files lists all" in short
    assert short.count("aaaaaaaa") == SHOWN
    assert drawn(_draw(differences(SHOWN + 3), whole=True)).count("aaaaaaaa") == SHOWN + 3


def test_of_a_record_only_the_fields_that_differ_are_shown():
    before = {"threads": None, "median_ms": 1.0, "backend": "x"}
    found = Difference(
        group="plans", name="p", change="changed", before=before, after={**before, "threads": 2}
    )
    assert drawn(_draw([found], whole=False)) == "plans: 1 ~ p threads null → 2"


def test_fields_of_fields_are_compared_one_by_one():
    before = {"key": "a" * 64, "options": {"size": "64", "kept": [1]}}
    after = {"key": "b" * 64, "options": {"size": "96", "kept": [1]}}
    found = Difference(group="steps", name="s", change="changed", before=before, after=after)
    expected = "steps: 1 ~ s key aaaaaaaa → bbbbbbbb, options.size 64 → 96"
    assert drawn(_draw([found], whole=False)) == expected


def test_of_a_record_on_one_side_the_plain_fields_are_shown():
    record = {"key": "c" * 64, "options": {"size": "64"}, "error": 1.5e-7, "plan": None}
    found = Difference(group="steps", name="s", change="removed", before=record, after=None)
    assert drawn(_draw([found], whole=False)) == "steps: 1 - s key cccccccc, error 1.5e-07"


def test_a_long_name_leaves_room_for_the_value():
    name = "build:onnxruntime-int8-streams onnxruntime-int8-streams engines against graphs"
    found = Difference(
        group="evidence", name=name, change="changed", before={"error": 1e-7}, after={"error": 2e-7}
    )
    text = drawn(_draw([found], whole=False))
    assert "error 1e-07 → 2e-07" in text
    assert text.startswith("evidence: 1 ~ build:onnxruntime-int8-streams")


def test_values_that_look_the_same_are_shown_in_full():
    assert _change(1.0, 2.0) == "1 → 2"
    assert _change(1.00001, 1.00002) == "1.00001 → 1.00002"
    assert _change("a" * 64, "a" * 8 + "b" * 56) == f'"{"a" * 64}" → "{"a" * 8}{"b" * 56}"'
