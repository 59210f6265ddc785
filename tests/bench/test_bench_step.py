from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from parnet_deploy.bench import bench_step
from parnet_deploy.bench.bench_step import OURS, BenchOptions, bench_to_deployment
from parnet_deploy.builder.build import BuildOptions, build_to_deployment
from parnet_deploy.deployment import Deployment
from parnet_deploy.errors import CheckFailedError, SpecError
from parnet_deploy.export.baselines import torch_arm
from parnet_deploy.export.export_step import export_to_deployment
from parnet_deploy.export.fuse_step import fuse_to_deployment
from parnet_deploy.export.trained import training_form
from parnet_deploy.measure import Arm, Latency

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


def test_the_report_has_every_sample_and_the_environment(built) -> None:
    model = training_form(Deployment.open(built))
    assert model is not None
    report = bench_to_deployment(
        built, BenchOptions(rounds=7), arms=[torch_arm(model)], left_out={"x": "not here"}
    ).report
    assert list(report["arms"]) == [OURS, "torch"]
    for row in report["arms"].values():
        assert len(row["samples_ms"]) == 7
        assert row["p50_ms"] <= row["p90_ms"] <= row["p99_ms"]
        assert row["ratio_to_ours"]["low"] <= row["ratio_to_ours"]["high"]
    assert report["arms"][OURS]["load_ms"] > 0
    assert report["environment"]["cores_usable"] >= 1
    assert report["left_out"] == {"x": "not here"}
    assert report["simulated"] is False
    assert "reports/bench.json" in Deployment.open(built).artifacts


def test_an_arm_that_is_wrong_is_caught_before_anything_is_timed(built, monkeypatch) -> None:
    def never(*args, **kwargs):
        raise AssertionError("timed")

    monkeypatch.setattr(bench_step, "alternate", never)
    wrong = Arm(
        name="wrong", run=lambda x: np.zeros((len(x), 10), np.float32), load_ms=None, note=""
    )
    with pytest.raises(CheckFailedError, match="arm wrong: error"):
        bench_to_deployment(built, arms=[wrong])
    assert "bench" not in Deployment.open(built).steps


def test_rounds_follow_from_the_budget(built) -> None:
    report = bench_to_deployment(built, BenchOptions(budget_s=0.001)).report
    assert report["rounds"] == bench_step.ROUNDS[0]


def test_a_batch_is_timed_as_a_batch(built) -> None:
    report = bench_to_deployment(built, BenchOptions(batch=3, rounds=2)).report
    assert report["batch"] == 3


def test_simulated_devices_are_called_so(built) -> None:
    build_to_deployment(built, BuildOptions(backend="fake", gpus=(0, 1)))
    report = bench_to_deployment(built, BenchOptions(backend="fake", rounds=2)).report
    assert report["simulated"] is True


@pytest.mark.parametrize("options", [{"batch": 0}, {"rounds": 0}])
def test_impossible_options(options) -> None:
    with pytest.raises(SpecError):
        BenchOptions(**options)


def test_noise_is_told() -> None:
    quiet = {"load_average": [0.1, 0, 0], "cores_usable": 2}
    steady = Latency(name="a", samples_ms=(1.0,) * 20, first_ms=1)
    jumpy = Latency(name="a", samples_ms=(1.0,) * 15 + (3.0,) * 5, first_ms=1)
    assert bench_step._noise(steady, quiet) is None
    assert "3.0 times the median" in (bench_step._noise(jumpy, quiet) or "")
    busy = {"load_average": [5.0, 1, 1], "cores_usable": 2}
    assert "load average 5.0 on 2 cores" in (bench_step._noise(steady, busy) or "")
