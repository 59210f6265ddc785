"""Comparing reports, on samples that were made up: nothing is timed here."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parnet_deploy.bench.change import (
    MARGIN,
    MARGIN_BY_TIME,
    MARGIN_DISTURBED,
    MARGIN_PACED,
    change_between,
    judge,
)
from parnet_deploy.bench.regression import (
    check_machine,
    check_subject,
    compare_reports,
    read_bench_report,
    require_unchanged,
)
from parnet_deploy.bench.result import OURS, SCHEMA, YARDSTICK, BenchReport
from parnet_deploy.contest.order import LEAST_ROUNDS
from parnet_deploy.errors import CheckFailedError, SpecError

Samples = st.lists(st.floats(1, 100), min_size=4, max_size=40)


def mode(samples: np.ndarray) -> dict[str, Any]:
    p99 = float(np.quantile(samples, 0.99))
    quantiles = {"p99": {"value": p99, "low": p99, "high": p99}}
    return {"samples_ms": list(map(float, samples)), "quantiles_ms": quantiles}


def report(
    factor: float = 1.0,
    *,
    machine: float = 1.0,
    seed: int = 0,
    spread: float = 0.05,
    foreign: float = 0.0,
    repeats: int = 4,
) -> BenchReport:
    """A run whose rounds were slowed together; ``machine`` is how slow the day was."""
    generator = np.random.default_rng(seed)
    weather = machine * np.exp(0.2 * generator.standard_normal(150))
    ours, unit = (
        weather * base * generator.lognormal(0, spread, 150)
        for base in (40.0 * factor, 7.5 * repeats)
    )
    arms = {
        OURS: {
            "modes": {"saturated": mode(ours)},
            "facts": {"cores": 2},
            "memory_mib": 100.0,
            "model_mib": 20.0,
            "load_ms": 50.0,
            "first_ms": 60.0,
        },
        YARDSTICK: {
            "modes": {"saturated": mode(unit)},
            "facts": {"version": 1, "repeats": repeats},
        },
    }
    found: Any = dict.fromkeys(BenchReport.__required_keys__)
    found |= {
        "schema": SCHEMA,
        "written": f"day {seed}",
        "environment": {
            "cpu": "Toy",
            "isa": [],
            "cores_usable": 2,
            "affinity": [0, 1],
            "gpus": [],
            "gpu_driver": None,
            "packages": {"onnxruntime": "1.0"},
            "during": {"foreign_cores": foreign},
        },
        "subject": {
            "backend": "onnxruntime",
            "simulated": False,
            "batch": 1,
            "input_size": [224, 224],
            "digest": "a",
        },
        "rounds": {"saturated": 150},
        "rate_hz": None,
        "arms": arms,
    }
    return found


@given(samples=Samples)
def test_a_run_has_not_changed_since_itself(samples) -> None:
    found = change_between(samples, samples)
    assert found["value"] == pytest.approx(1)
    assert found["low"] <= 1 <= found["high"]


@given(old=Samples, new=Samples)
def test_backwards_is_the_reciprocal(old, new) -> None:
    there, back = change_between(old, new), change_between(new, old)
    assert there["value"] == pytest.approx(1 / back["value"])
    assert there["low"] == pytest.approx(1 / back["high"])
    assert there["high"] == pytest.approx(1 / back["low"])


@given(old=Samples, new=Samples, factor=st.floats(0.1, 10))
def test_a_factor_is_a_factor(old, new, factor) -> None:
    plain, scaled = (
        change_between(old, samples) for samples in (new, [factor * one for one in new])
    )
    for name in ("value", "low", "high"):
        assert scaled[name] == pytest.approx(factor * plain[name])


def test_intervals_of_a_change_hold_the_truth() -> None:
    generator = np.random.default_rng(3)
    held = 0
    for _ in range(100):
        old, new = (list(generator.lognormal(0, 0.1, 100)) for _ in range(2))
        found = change_between(old, new)
        held += found["low"] <= 1 <= found["high"]
    assert held >= 88


def interval(low: float, value: float, high: float) -> Any:
    return {"low": low, "value": value, "high": high}


@pytest.mark.parametrize(
    ("change", "disturbed", "verdict"),
    [
        (interval(0.99, 1.00, 1.01), False, "unchanged"),
        (interval(1.02, 1 + 0.9 * MARGIN, 1.06), False, "unchanged"),
        (interval(1.08, 1.10, 1.12), False, "regression"),
        (interval(0.99, 1.10, 1.21), False, "too noisy to tell"),
        (interval(0.85, 1.00, 1.15), False, "too noisy to tell"),
        (interval(0.86, 0.90, 0.94), False, "faster"),
        (interval(1.08, 1.10, 1.12), True, "too noisy to tell"),
        (interval(0.86, 0.90, 0.94), True, "too noisy to tell"),
        (interval(1.30, 1.1 + MARGIN_DISTURBED, 1.60), True, "regression"),
    ],
)
def test_what_a_change_means(change, disturbed, verdict) -> None:
    assert judge(change, MARGIN, disturbed=disturbed) == verdict


def test_a_slower_day_is_no_regression() -> None:
    found = compare_reports(report(), report(machine=1.8, seed=1))
    assert found["verdict"] == "unchanged"
    assert found["by"] == "yardstick"
    assert found["failures"] == found["warnings"] == found["notes"] == []
    one = found["modes"]["saturated"]
    assert one["ours_ms"][1] > 1.5 * one["ours_ms"][0]
    require_unchanged(found)


def test_ten_percent_are_found_on_a_slower_and_on_a_faster_day() -> None:
    for machine in (0.7, 1.6):
        found = compare_reports(report(), report(1.10, machine=machine, seed=1))
        assert found["verdict"] == "regression"
        assert found["modes"]["saturated"]["change"]["value"] == pytest.approx(1.10, abs=0.03)
        with pytest.raises(CheckFailedError, match="report of day 0: got saturated: ") as caught:
            require_unchanged(found)
        assert caught.value.exit_code == 3


def test_faster_is_no_failure() -> None:
    found = compare_reports(report(1.2), report(seed=1))
    assert found["verdict"] == "faster"
    require_unchanged(found)


def test_repetitions_of_the_yardstick_do_not_count() -> None:
    found = compare_reports(report(repeats=4), report(repeats=5, seed=1))
    assert found["verdict"] == "unchanged"


def test_a_disturbed_run_is_not_judged() -> None:
    found = compare_reports(report(), report(1.1, seed=1, foreign=0.9))
    assert found["verdict"] == "too noisy to tell"
    assert found["warnings"] == [
        "other programs used 0.9 cores now: run it again on a quiet machine"
    ]
    require_unchanged(found)


def test_wide_intervals_are_told() -> None:
    old, new = report(spread=0.8), report(spread=0.8, seed=1)
    found = compare_reports(old, new)
    assert found["verdict"] == "too noisy to tell"
    assert "longer --budget" in found["warnings"][0]


def test_without_a_yardstick_times_are_compared_with_a_wide_margin() -> None:
    old, new, slower = report(), report(1.1, seed=1), report(1.4, seed=2)
    for one in (old, new, slower):
        one["arms"].pop(YARDSTICK)
    found = compare_reports(old, new)
    assert found["by"] == "time"
    assert found["modes"]["saturated"]["margin"] == MARGIN_BY_TIME
    assert found["verdict"] != "regression"
    assert any("no yardstick in common" in note for note in found["notes"])
    assert compare_reports(old, slower)["verdict"] == "regression"


def paced(found: BenchReport) -> BenchReport:
    """The same run as one of paced calls."""
    found["rounds"], found["rate_hz"] = {"paced": found["rounds"]["saturated"]}, 30.0
    for arm in found["arms"].values():
        arm["modes"] = {"paced": arm["modes"]["saturated"]}
    return found


def test_paced_calls_differ_more_between_runs() -> None:
    by_mode = [compare_reports(report(), report(1.06, seed=1))]
    by_mode.append(compare_reports(paced(report()), paced(report(1.06, seed=1))))
    assert [found["verdict"] for found in by_mode] == ["regression", "unchanged"]
    slower = compare_reports(paced(report()), paced(report(1.10, seed=1)))
    assert slower["verdict"] == "regression"
    assert slower["modes"]["paced"]["margin"] == MARGIN_PACED


def test_another_yardstick_is_none() -> None:
    new = report(seed=1)
    new["arms"][YARDSTICK]["facts"]["version"] = 2
    assert compare_reports(report(), new)["by"] == "time"


def test_a_gpu_is_compared_by_time_and_closely() -> None:
    old, new = report(), report(1.10, seed=1)
    for one in (old, new):
        one["subject"]["backend"] = "tensorrt"
        one["arms"][OURS]["modes"]["saturated"]["samples_ms"] = [
            (1.1 if one is new else 1.0) * (1 + i % 3 / 1000) for i in range(150)
        ]
    found = compare_reports(old, new)
    assert found["by"] == "time"
    assert found["verdict"] == "regression"
    assert found["notes"] == []


@pytest.mark.parametrize(
    ("where", "name", "value"),
    [
        ("environment", "cpu", "Other"),
        ("environment", "cores_usable", 4),
        ("subject", "backend", "tensorrt"),
        ("subject", "batch", 4),
        ("subject", "input_size", [256, 256]),
    ],
)
def test_what_does_not_compare_is_refused(where, name, value) -> None:
    new = report(seed=1)
    new[where][name] = value
    with pytest.raises(SpecError, match=f"compare: got reports of different runs .*{name}"):
        compare_reports(report(), new)


def test_another_machine_is_refused_before_anything_is_timed() -> None:
    here = report()["environment"]
    check_machine(report(), here)
    with pytest.raises(SpecError, match="cpu Toy then, Other now"):
        check_machine(report(), {**here, "cpu": "Other"})


def test_no_mode_in_common_is_refused() -> None:
    old, new = report(), report(seed=1)
    for one, rate in ((old, 30.0), (new, 15.0)):
        one["rounds"] = {"paced": 150}
        one["rate_hz"] = rate
    with pytest.raises(SpecError, match="at the same rate"):
        compare_reports(old, new)


def test_versions_and_digests_are_noted_not_refused() -> None:
    new = report(seed=1)
    new["environment"]["packages"] = {"onnxruntime": "2.0", "torch": "3"}
    new["subject"]["digest"] = "b"
    notes = compare_reports(report(), new)["notes"]
    assert notes == [
        "digest: a then, b now",
        "onnxruntime: 1.0 then, 2.0 now",
        "torch: none then, 3 now",
    ]


@pytest.mark.parametrize(
    ("old", "new", "fails"), [(100.0, 109.0, 0), (100.0, 112.0, 1), (10.0, 15.0, 0)]
)
def test_memory(old, new, fails) -> None:
    then, now = report(), report(seed=1)
    then["arms"][OURS]["memory_mib"], now["arms"][OURS]["memory_mib"] = old, new
    found = compare_reports(then, now)
    assert found["verdict"] == "unchanged"
    assert len(found["failures"]) == fails


def test_unknown_memory_is_not_compared() -> None:
    now = report(seed=1)
    now["arms"][OURS]["memory_mib"] = None
    found = compare_reports(report(), now)
    assert "memory_mib" not in found["costs"]
    assert found["failures"] == []


def test_the_tail_and_the_model_are_warned_of() -> None:
    now = report(seed=1)
    now["arms"][OURS]["model_mib"] = 25.0
    now["arms"][OURS]["modes"]["saturated"]["quantiles_ms"]["p99"]["value"] *= 3
    found = compare_reports(report(), now)
    assert found["failures"] == []
    assert [text.partition(" ")[0] for text in found["warnings"]] == ["saturated:", "the"]


def test_a_report_is_read_back(tmp_path) -> None:
    path = tmp_path / "old.json"
    path.write_text(json.dumps(report()))
    assert read_bench_report(path) == json.loads(path.read_text())


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{", '{"schema": 1}', json.dumps({"schema": SCHEMA}), "\xff"],
)
def test_what_is_no_report(tmp_path, text) -> None:
    path = tmp_path / "old.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(SpecError, match=r"report .*old\.json: "):
        read_bench_report(path)


def test_a_comparison_is_json_and_leaves_the_reports_alone() -> None:
    old, new = report(), report(seed=1)
    before = copy.deepcopy((old, new))
    assert json.dumps(compare_reports(old, new), allow_nan=False)
    assert (old, new) == before


def test_another_number_of_threads_is_said() -> None:
    new = report(1.9, seed=1)
    new["arms"][OURS]["facts"]["cores"] = 1
    found = compare_reports(report(), new)
    assert found["verdict"] == "regression"
    assert "threads: 2 then, 1 now" in found["notes"]


def test_a_handful_of_samples_proves_nothing() -> None:
    old, new = report(), report(1.5, seed=1)
    for each in (old, new):
        each["rounds"]["saturated"] = 5
        for arm in each["arms"].values():
            arm["modes"]["saturated"]["samples_ms"] = arm["modes"]["saturated"]["samples_ms"][:5]
    assert compare_reports(old, new)["verdict"] == "too noisy to tell"


def _cut(found: Any, *path: str, value: Any = None) -> None:
    for key in path[:-1]:
        found = found[key]
    found[path[-1]] = value


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("arms",), None),
        (("arms",), 3),
        (("arms",), "parnet-deploy"),
        (("arms",), {}),
        (("environment",), None),
        (("subject",), []),
        (("rounds", "saturated"), 0),
        (("rounds", "saturated"), "x"),
        (("arms", OURS, "modes", "saturated", "samples_ms"), []),
        (("arms", OURS, "modes", "saturated", "samples_ms"), [1.0, float("nan")]),
        (("arms", OURS, "modes", "saturated", "samples_ms"), [0.0] * 150),
        (("arms", OURS, "modes", "saturated", "samples_ms"), [40.0] * 3),
        (("arms", OURS, "modes", "saturated", "samples_ms"), "abc"),
        (("arms", OURS, "modes", "saturated"), {}),
        (("arms", YARDSTICK, "facts"), {"version": 1}),
        (("arms", YARDSTICK, "facts"), {"version": 1, "repeats": 0}),
        (("arms", YARDSTICK, "facts"), {"version": 1, "repeats": -1}),
        (("arms", YARDSTICK, "facts"), {"version": 1, "repeats": float("inf")}),
    ],
)
def test_a_report_that_somebody_edited_is_refused(tmp_path: Path, path, value) -> None:
    damaged = report()
    _cut(damaged, *path, value=value)
    file = tmp_path / "old.json"
    file.write_text(json.dumps(damaged))
    with pytest.raises(SpecError, match="expected a whole one"):
        read_bench_report(file)


@pytest.mark.parametrize("value", ["fast", float("nan"), True, [1.0], 10**400])
def test_a_cost_that_is_no_number_is_not_compared(value: Any) -> None:
    old: Any = report()
    old["arms"][OURS]["first_ms"] = value
    found = compare_reports(old, report())
    assert "first_ms" not in found["costs"]
    json.dumps(found, allow_nan=False)


def test_a_machine_described_by_nonsense_is_another_one() -> None:
    old: Any = report()
    old["environment"]["isa"] = [{}]
    with pytest.raises(SpecError, match="isa None then"):
        check_machine(old, report()["environment"])


@pytest.mark.parametrize("rounds", [1, LEAST_ROUNDS - 1])
def test_few_rounds_of_many_calls_are_no_change(rounds: int) -> None:
    old, new = report(), report(2.0)
    new["rounds"]["saturated"] = rounds
    assert compare_reports(old, new)["modes"]["saturated"]["verdict"] == "too noisy to tell"


def test_what_is_no_file_is_no_report() -> None:
    with pytest.raises(SpecError, match="got no file"):
        read_bench_report(Path("/dev/zero"))


def test_a_report_without_a_bottom_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "old.json"
    file.write_text("[" * 100_000)
    with pytest.raises(SpecError, match="cannot be read"):
        read_bench_report(file)


def test_another_batch_is_refused_before_anything_is_timed() -> None:
    subject: Any = {**report()["subject"], "batch": 4}
    check_subject(report(), report()["subject"])
    with pytest.raises(SpecError, match="batch: 1 then, 4 now"):
        check_subject(report(), subject)
