from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from parnet_deploy.bench.bench_step import BenchOptions, bench_to_deployment
from parnet_deploy.bench.report.evidence import gather
from parnet_deploy.bench.result import (
    BENCH_PAGE,
    BENCH_REPORT,
    OURS,
    QUANTILE_NAMES,
    SCHEMA,
    YARDSTICK,
    BenchReport,
)
from parnet_deploy.bench.sweep import SweepOptions
from parnet_deploy.builder.build import BuildOptions, build_to_deployment
from parnet_deploy.contest.arm import ArmSpec
from parnet_deploy.contest.contest import MIN_SAMPLES, Contest
from parnet_deploy.contest.order import LEAST_ROUNDS
from parnet_deploy.deployment import Deployment
from parnet_deploy.errors import CheckFailedError, SpecError
from parnet_deploy.export.export_step import export_to_deployment
from parnet_deploy.export.fuse_step import fuse_to_deployment

CHECKPOINT = Path(__file__).parents[2] / "examples/digits/digits.pth.tar"


@pytest.fixture(scope="module")
def built_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("built") / "digits"
    fuse_to_deployment(CHECKPOINT, directory)
    export_to_deployment(directory)
    build_to_deployment(directory, BuildOptions(placement="one", threads=1))
    return directory


@pytest.fixture
def built(built_once: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built_once, tmp_path / "digits"))


def toy(name: str, function: str, **options: object) -> ArmSpec:
    return ArmSpec(name=name, entry=f"tests.contest.toy_arms:{function}", options=options)


def test_the_report_has_every_sample_and_the_environment(built) -> None:
    report = bench_to_deployment(built, BenchOptions(rounds=3, vs=("torch",))).report
    assert set(report) == BenchReport.__required_keys__
    assert report["schema"] == SCHEMA
    assert list(report["arms"]) == [OURS, "torch", YARDSTICK]
    assert report["rounds"] == {"saturated": 3, "paced": 3}
    assert report["rate_hz"] == 30.0
    for arm in report["arms"].values():
        assert arm["check"]["passed"] is True
        assert 0 <= arm["check"]["error"] <= arm["check"]["limit"]
        assert arm["first_ms"] > 0
        assert arm["import_ms"] > 0
        for measured in arm["modes"].values():
            assert len(measured["samples_ms"]) % 3 == 0
            assert list(measured["quantiles_ms"]) == list(QUANTILE_NAMES)
            assert measured["quantiles_ms"]["p50"] is not None
            assert measured["ratio_to_ours"]["low"] <= measured["ratio_to_ours"]["high"]
    ours = report["arms"][OURS]
    assert ours["modes"]["paced"]["ratio_to_ours"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    assert ours["load_ms"] > 0
    assert 0 < ours["model_mib"] < 100
    assert report["environment"]["cores_usable"] >= 1
    assert report["environment"]["deployment"] == report["subject"]["digest"]
    assert report["environment"]["during"]["seconds"] > 0
    assert "counters" not in report["environment"]
    assert report["left_out"] == {}
    opened = Deployment.open(built)
    assert json.loads(opened.read_bytes(BENCH_REPORT)) == json.loads(json.dumps(report))
    assert any(line.startswith("Is it right? Yes") for line in report["verdict"])
    page = opened.read_bytes(BENCH_PAGE).decode()
    assert "Is it right?" in page
    assert opened.spec.to_json() == gather(opened, report["subject"]["plan"])["manifest"]["spec"]
    assert set(opened.steps["bench"]["made_from"]) == {f"build:{report['subject']['plan']}"}


def test_the_subject_is_what_was_measured(built) -> None:
    before = Deployment.open(built)
    subject = bench_to_deployment(built, BenchOptions(rounds=1, mode="saturated")).report["subject"]
    assert subject == {
        "name": "digits",
        "digest": before.digest,
        "plan": "onnxruntime-fp32-one-1threads",
        "placement": "one",
        "backend": "onnxruntime",
        "simulated": False,
        "precision": "fp32",
        "batch": 1,
        "input_size": [32, 32],
        "classes": 10,
        "parameters": before.source["parameters"],
        "macs": sum(before.spec.macs(32, 32).values()),
    }


def test_an_arm_that_is_wrong_is_caught_before_anything_is_timed(built, monkeypatch) -> None:
    def never(*args, **kwargs):
        raise AssertionError("timed")

    monkeypatch.setattr(Contest, "rounds", never)
    wrong = toy("wrong", "open_checked")
    with pytest.raises(CheckFailedError, match="arm wrong: got shape"):
        bench_to_deployment(built, arms=[wrong])
    assert "bench" not in Deployment.open(built).steps


def test_an_arm_that_cannot_be_opened_stands_in_the_report(built) -> None:
    absent = toy("absent", "open_raising", kind="ours")
    report = bench_to_deployment(built, BenchOptions(rounds=1), arms=[absent]).report
    assert report["left_out"] == {"absent": "engine x: cannot be loaded."}


@pytest.mark.parametrize("mode", ["saturated", "paced"])
def test_rounds_follow_from_the_budget(built, mode) -> None:
    options = BenchOptions(budget_s=0.001, mode=mode, rate_hz=1000.0)
    report = bench_to_deployment(built, options).report
    assert list(report["rounds"]) == list(report["arms"][OURS]["modes"]) == [mode]
    assert report["rate_hz"] == (1000.0 if mode == "paced" else None)
    samples = report["arms"][OURS]["modes"][mode]["samples_ms"]
    calls = len(samples) // report["rounds"][mode]
    assert MIN_SAMPLES <= len(samples) < max(MIN_SAMPLES, LEAST_ROUNDS * calls) + calls
    assert report["rounds"][mode] >= LEAST_ROUNDS


def test_a_batch_is_timed_as_a_batch(built) -> None:
    options = BenchOptions(batch=3, rounds=2, vs=("onnxruntime",))
    report = bench_to_deployment(built, options).report
    assert report["subject"]["batch"] == 3
    assert set(report["arms"]) == {OURS, "onnxruntime", YARDSTICK}


def test_a_batch_that_no_plan_takes_is_refused_before_it_is_made(built, monkeypatch) -> None:
    monkeypatch.setattr(np, "concatenate", None)
    with pytest.raises(SpecError, match="batch: got 2000000000, expected 1 to "):
        bench_to_deployment(built, BenchOptions(batch=2_000_000_000))


def test_simulated_devices_are_called_so(built) -> None:
    build_to_deployment(built, BuildOptions(backend="fake", gpus=(0, 1)))
    report = bench_to_deployment(built, BenchOptions(backend="fake", rounds=2)).report
    assert report["subject"]["simulated"] is True


def test_an_alias_and_a_repetition_are_one_arm() -> None:
    options = BenchOptions(vs=("torch", "onnxruntime-unfused", "onnxruntime"))
    assert options.vs == ("torch", "onnxruntime")


@pytest.mark.parametrize(
    "options",
    [
        {"batch": 0},
        {"rounds": 0},
        {"mode": "idle"},
        {"rate_hz": 0.0},
        {"budget_s": float("nan")},
        {"vs": ("torhc",)},
    ],
)
def test_impossible_options(options) -> None:
    with pytest.raises(SpecError):
        BenchOptions(**options)


def test_curves_stand_in_the_report(built) -> None:
    curves = SweepOptions(over=("batch",), batches=(1, 3, 99), rounds=2)
    options = BenchOptions(rounds=1, mode="saturated", curves=curves)
    (curve,) = bench_to_deployment(built, options).report["curves"]
    assert [point["value"] for point in curve["points"]] == ["1", "3"]
    assert set(curve["left_out"]) == {"99"}
