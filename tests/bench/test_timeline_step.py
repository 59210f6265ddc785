from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from parnet_deploy.bench import timeline_step
from parnet_deploy.bench.bench_step import BenchOptions, bench_to_deployment
from parnet_deploy.bench.timeline_step import PICTURE, TRACE, trace_to_deployment
from parnet_deploy.builder.build import BuildOptions, build_to_deployment
from parnet_deploy.deployment import Deployment
from parnet_deploy.export.export_step import export_to_deployment
from parnet_deploy.export.fuse_step import fuse_to_deployment

CHECKPOINT = Path(__file__).parents[2] / "examples/digits/digits.pth.tar"


@pytest.fixture(scope="module")
def built_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("built") / "digits"
    fuse_to_deployment(CHECKPOINT, directory)
    export_to_deployment(directory)
    build_to_deployment(directory, BuildOptions(placement="streams", threads=1))
    build_to_deployment(directory, BuildOptions(backend="fake", gpus=(0, 1, 2)))
    return directory


@pytest.fixture
def built(built_once: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built_once, tmp_path / "digits"))


def test_simulated_devices_leave_a_trace_and_a_picture(built: Path) -> None:
    report = trace_to_deployment(built, BenchOptions(backend="fake")).report
    assert report["simulated"] is True
    assert report["calls"] == timeline_step.CALLS
    assert {lane["device"] for lane in report["lanes"]} == {0, 1, 2}
    opened = Deployment.open(built)
    trace = json.loads(opened.read_bytes(TRACE))
    assert trace["otherData"] == json.loads(json.dumps(report))
    assert {event["ph"] for event in trace["traceEvents"]} == {"M", "X"}
    assert b"Nothing was measured" in opened.read_bytes(PICTURE)


def test_the_cpu_is_measured(built: Path) -> None:
    report = trace_to_deployment(built, BenchOptions(backend="onnxruntime")).report
    assert report["simulated"] is False
    assert report["critical"][-1]["name"] == "head"
    assert report["wall_us"] > 0
    assert {lane["lane"] for lane in report["lanes"]} == {0, 1, 2}
    assert b"without graphs" in Deployment.open(built).read_bytes(PICTURE)


def test_a_later_benchmark_keeps_the_timeline(built: Path) -> None:
    trace_to_deployment(built, BenchOptions(backend="fake"))
    bench_to_deployment(built, BenchOptions(rounds=2))
    assert {TRACE, PICTURE} <= set(Deployment.open(built).artifacts)
