"""Evidence so far."""

from __future__ import annotations

import json

import pytest

from parnet_deploy.bench import result
from parnet_deploy.builder.verify_step import VERIFY_REPORT
from parnet_deploy.export.export_step import EXPORT_REPORT
from parnet_deploy.export.fuse_step import FUSE_REPORT
from parnet_deploy.inspect.evidence import OURS, gather_evidence
from parnet_deploy.quantize.options import report_name
from tests.bench.report.samples import make_report
from tests.inspect.deployments import PLAN, check, damage, make, plan

FUSE = {"proof": {"float64": check(1e-15, 1e-10), "float32": check(2e-7, 1e-5)}}
EXPORT = {"checks": [check(3e-7), check(9e-7), check(1e-7)]}
GATES = {
    "checks": [{"passed": True}, {"passed": True}, {"passed": False}],
    "measured": {
        "kernel": None,
        "emulated": {
            "clean": {
                "images": 450,
                "agreement": 0.99,
                "accuracy": 0.97,
                "reference_accuracy": 0.98,
            }
        },
    },
}
BENCH = {
    "subject": {"plan": PLAN},
    "arms": {
        "parnet-deploy": {
            "check": {"passed": True},
            "modes": {
                "saturated": {
                    "quantiles_ms": {"p50": {"value": 2.0, "low": 1.9, "high": 2.2}},
                    "ratio_to_ours": {"value": 1.0},
                },
                "paced": {"quantiles_ms": {"p50": None}},
            },
        },
        "torch": {"modes": {"saturated": {"ratio_to_ours": {"value": 3.5}}}},
    },
}


@pytest.fixture
def whole(tmp_path):
    return make(
        tmp_path / "d",
        reports={
            "fuse": FUSE,
            "export": EXPORT,
            "quantize:int8-cpu": GATES,
            "verify": {"plans": {PLAN: [check(4e-6), check(5e-3, 2e-2)]}},
            "bench": BENCH,
        },
        plans={
            PLAN: (plan(made={"checks": [check(8e-6)]}), "export"),
            "later": (plan(), "export"),
        },
    )


def by_step(deployment):
    return {(item.step, item.plan, item.what): item for item in gather_evidence(deployment)}


def test_every_step_tells_what_it_found(whole):
    found = gather_evidence(whole)
    assert [(item.step, item.plan, item.passed) for item in found] == [
        ("fuse", None, True),
        ("fuse", None, True),
        ("export", None, True),
        ("quantize:int8-cpu", None, False),
        ("build:later", "later", None),
        (f"build:{PLAN}", PLAN, True),
        ("verify", "later", None),
        ("verify", PLAN, True),
        ("bench", PLAN, True),
    ]
    figures = {(item.step, item.plan): item.figures for item in found}
    assert figures["export", None] == {"error": 9e-7, "limit": 1e-4, "compared": 3}
    assert figures["quantize:int8-cpu", None] == {
        "held": 2,
        "gates": 3,
        "images": 450,
        "agreement": 0.99,
        "accuracy": 0.97,
        "reference_accuracy": 0.98,
    }
    assert figures["bench", PLAN] == {
        "saturated": {"median_ms": 2.0, "low": 1.9, "high": 2.2, "ratios": {"torch": 3.5}}
    }
    assert json.loads(json.dumps([item.to_json() for item in found]))[0]["kind"] == "parity"


def test_dates_are_those_of_the_steps(whole):
    for item in gather_evidence(whole):
        assert item.finished == whole.steps[item.step]["finished"]


def test_the_comparison_nearest_to_its_limit_is_shown(whole):
    verified = next(i for i in gather_evidence(whole) if i.step == "verify" and i.plan == PLAN)
    assert verified.figures == {"error": 5e-3, "limit": 2e-2, "compared": 2}


def test_one_failed_comparison_fails_the_row(tmp_path):
    report = {"checks": [check(), check(2e-4)]}
    exported = gather_evidence(make(tmp_path / "d", reports={"export": report}))[-1]
    assert (exported.step, exported.passed, exported.figures["error"]) == ("export", False, 2e-4)


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("reports/fuse.json", "fuse"),
        ("reports/export.json", "export"),
        ("reports/precision-int8-cpu.json", "quantize:int8-cpu"),
        (f"plans/{PLAN}/build.json", f"build:{PLAN}"),
        ("reports/verify.json", "verify"),
        ("reports/bench.json", "bench"),
    ],
)
def test_a_damaged_report_proves_nothing(whole, name, step):
    before = len(gather_evidence(whole))
    damage(whole, name)
    found = gather_evidence(whole)
    assert len(found) == before
    assert {(item.passed, len(item.figures)) for item in found if item.step == step} == {(None, 0)}
    assert any(item.passed for item in found)


@pytest.mark.parametrize("report", [{}, {"arms": []}, {"arms": {"parnet-deploy": {"modes": 3}}}])
def test_a_bench_report_of_another_shape_tells_nothing(tmp_path, report):
    (timed,) = gather_evidence(make(tmp_path / "d", reports={"bench": report}))[-1:]
    assert (timed.step, timed.plan, timed.passed, timed.figures) == ("bench", None, None, {})


def test_the_names_of_arms_and_reports_are_those_of_their_steps():
    assert OURS == result.OURS
    names = {FUSE_REPORT, EXPORT_REPORT, VERIFY_REPORT, result.BENCH_REPORT}
    assert names == {f"reports/{name}.json" for name in ("fuse", "export", "verify", "bench")}
    assert report_name("int8-cpu") == "reports/precision-int8-cpu.json"


def test_a_report_of_the_benchmark_as_it_is_written(tmp_path):
    report = make_report(rivals={"torch": 150.0})
    timed = gather_evidence(make(tmp_path / "d", reports={"bench": report}))[-1]
    arms = report["arms"]
    assert timed.passed is arms[OURS]["check"]["passed"]
    assert set(timed.figures) == set(arms[OURS]["modes"])
    for mode, found in timed.figures.items():
        assert found["median_ms"] == arms[OURS]["modes"][mode]["quantiles_ms"]["p50"]["value"]
        assert found["ratios"] == {
            name: arm["modes"][mode]["ratio_to_ours"]["value"]
            for name, arm in arms.items()
            if name != OURS
        }
        assert found["ratios"]["torch"] > 1


def test_nothing_but_the_fuse_step(tmp_path):
    found = gather_evidence(make(tmp_path / "d", reports={"fuse": FUSE}))
    assert [item.figures.get("error") for item in found] == [1e-15, 2e-7, None]
