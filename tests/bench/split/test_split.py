from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from parnet_deploy.bench.bench_step import BenchOptions, bench_to_deployment
from parnet_deploy.bench.split import explain as explain_module
from parnet_deploy.bench.split import split as split_module
from parnet_deploy.bench.split.profile import profile_engine
from parnet_deploy.bench.split.roofline import add_shares, measure_roofline
from parnet_deploy.bench.split.split import measure_split
from parnet_deploy.builder.build import BuildOptions, build_to_deployment
from parnet_deploy.deployment import Deployment
from parnet_deploy.errors import MissingExtraError
from parnet_deploy.export.export_step import export_to_deployment
from parnet_deploy.export.fuse_step import fuse_to_deployment
from parnet_deploy.quantize.calibrate_step import calibrate
from parnet_deploy.quantize.options import QuantizeOptions
from parnet_deploy.quantize.prepare import DataOptions, ImageSource, load_data
from parnet_deploy.quantize.quantize_step import quantize_to_deployment
from parnet_deploy.runtime.choose import read_plan
from parnet_deploy.steps import read_reference

REPOSITORY = Path(__file__).parents[3]
CHECKPOINT = REPOSITORY / "examples/digits/digits.pth.tar"
DIGITS = REPOSITORY / "calibration/digits"
STAGES = ["copy in", "stems", "streams", "wait", "fusion", "head", "copy out", "other"]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("split") / "digits"
    fuse_to_deployment(CHECKPOINT, directory)
    export_to_deployment(directory)
    for placement in ("one", "streams"):
        build_to_deployment(directory, BuildOptions(placement=placement, threads=2))
    options = BuildOptions(placement="streams", backend="fake", gpus=(0, 1, 2))
    build_to_deployment(directory, options)
    return directory


@pytest.fixture(scope="module")
def lowered(built: Path) -> Path:
    """A copy with plans of one engine in lower precision, beside those in float32."""
    directory = Path(shutil.copytree(built, built.with_name("lowered")))
    options = DataOptions(
        calibration=ImageSource(paths=(DIGITS / "calibration",)),
        evaluation=ImageSource(paths=(DIGITS / "eval",)),
        samples=64,
        eval_samples=60,
        noise=0,
    )
    data = load_data(directory, options)
    ranges = calibrate(directory, data.calibration, data.sets["clean"])
    for precision, target in (("fp16", "fp16"), ("int8", "int8-cpu")):
        made = QuantizeOptions(target=target)
        quantize_to_deployment(directory, data.sets, made, calibration=ranges)
        build_to_deployment(
            directory, BuildOptions(precision=precision, placement="one", threads=2)
        )
    return directory


def image_of(directory: Path) -> np.ndarray:
    return read_reference(Deployment.open(directory)).image


def plans(directory: Path) -> dict[str, str]:
    about = Deployment.open(directory).plans
    return {f"{plan['backend']}, {plan['placement']}": key for key, plan in about.items()}


@pytest.mark.parametrize("name", ["onnxruntime, one", "onnxruntime, streams"])
def test_the_rows_add_up_to_the_call(built: Path, name: str) -> None:
    found = measure_split(built, plans(built)[name], image_of(built))
    assert [row["stage"] for row in found["rows"]] == ["preprocess", *STAGES]
    inside = [row["ms"] for row in found["rows"][1:]]
    assert sum(inside) == pytest.approx(found["whole_ms"])
    assert all(row["how"] for row in found["rows"])
    stages = {row["stage"]: row["ms"] for row in found["rows"]}
    assert min(stages[name] for name in ("preprocess", "stems", "streams", "head")) > 0
    spec = Deployment.open(built).spec
    assert [part["part"] for part in found["parts"]] == [part.name for part in spec.parts]
    assert all(part["ms"] > 0 for part in found["parts"]), "every block kept its name"
    assert {part["part"] for part in found["parts"] if part["critical"]} >= {"stem0", "head"}


def test_macs_and_bytes_are_those_of_the_network(built: Path) -> None:
    image = image_of(built)
    pair = np.concatenate([image, image])
    key = plans(built)["onnxruntime, one"]
    single, double = (measure_split(built, key, x)["parts"] for x in (image, pair))
    opened = Deployment.open(built)
    assert {part["part"]: part["macs"] for part in single} == opened.spec.macs(*image.shape[2:])
    for one, two in zip(single, double, strict=True):
        weights = opened.artifacts[f"onnx/{one['part']}.onnx"]["bytes"]
        assert two["bytes"] - one["bytes"] == one["bytes"] - weights, "activations count twice"


@pytest.mark.parametrize(
    ("precision", "folder"), [("fp16", "onnx-fp16"), ("int8", "onnx-int8-cpu")]
)
def test_bytes_are_those_of_the_plans_own_graphs(lowered: Path, precision, folder) -> None:
    opened, image = Deployment.open(lowered), image_of(lowered)
    wide = measure_split(lowered, "onnxruntime-fp32-one-2threads", image)["parts"]
    low = measure_split(lowered, f"onnxruntime-{precision}-one-2threads", image)["parts"]
    for before, after in zip(wide, low, strict=True):
        stored = [opened.artifacts[f"{f}/{after['part']}.onnx"]["bytes"] for f in ("onnx", folder)]
        assert before["bytes"] - after["bytes"] == stored[0] - stored[1] != 0
        assert after["ms"] > 0


def test_a_float16_engine_has_no_time_that_is_of_no_part(lowered: Path) -> None:
    opened = Deployment.open(lowered)
    engine = read_plan(opened, "onnxruntime-fp16-one-2threads").engines["all"]
    found, _ = profile_engine(engine, {"image": image_of(lowered)}, opened.spec, threads=1)
    assert {part.name for part in opened.spec.parts} <= set(found.parts)
    assert found.parts.get("", 0.0) < 0.1 * sum(found.parts.values())


def test_engines_without_a_profiler_are_not_guessed_at(built: Path) -> None:
    key = plans(built)["fake, streams"]
    found = measure_split(built, key, image_of(built))
    assert found["parts"] == []
    assert "no profiler" in found["source"]
    stages = {row["stage"]: row["ms"] for row in found["rows"]}
    assert min(stages["copy in"], stages["copy out"], stages["wait"]) > 0, "copies and launches"
    assert sum(row["ms"] for row in found["rows"][1:]) == pytest.approx(found["whole_ms"])


def test_an_engine_that_nothing_looks_into_is_a_stage_of_its_own(built: Path) -> None:
    options = BuildOptions(placement="one", backend="fake", gpus=(0,))
    key = build_to_deployment(built, options).report["plan"]
    found = measure_split(built, key, image_of(built))
    stages = {row["stage"]: row["ms"] for row in found["rows"]}
    assert list(stages) == ["preprocess", *STAGES[:-1], "engine", "other"]
    assert stages["engine"] > 0
    assert stages["stems"] == stages["streams"] == stages["head"] == 0
    assert sum(row["ms"] for row in found["rows"][1:]) == pytest.approx(found["whole_ms"])


def test_calls_that_were_not_looked_into_are_told_apart(monkeypatch, built: Path) -> None:
    monkeypatch.setattr(split_module, "time_ms", lambda call: 1e-3)
    found = measure_split(built, plans(built)["onnxruntime, one"], image_of(built))
    assert found["plain_ms"] == 1e-3
    assert found["whole_ms"] > found["plain_ms"]
    assert "changed its time by" in found["source"]
    assert all(row["ms"] >= 0 for row in found["rows"])


def test_the_roofline_bounds_what_it_is_said_to_bound(built: Path) -> None:
    opened, key = Deployment.open(built), plans(built)["onnxruntime, one"]
    report = bench_to_deployment(
        Path(shutil.copytree(built, built.with_name("copy"))),
        BenchOptions(plan=key, rounds=1, mode="saturated"),
    ).report
    roofline, split = report["roofline"], report["split"]
    assert roofline["peak_gflops"] > 0 < roofline["bandwidth_gbs"]
    flops = 2 * sum(opened.spec.macs(32, 32).values())
    assert roofline["gflops"] == pytest.approx(flops / split["plain_ms"] / 1e6)
    moved = sum(part["bytes"] for part in split["parts"])
    assert roofline["intensity"] == pytest.approx(flops / moved)
    reach = roofline["intensity"] * roofline["bandwidth_gbs"]
    bound = reach >= roofline["peak_gflops"]
    possible = min(reach, roofline["peak_gflops"])
    assert roofline["share_of_peak"] == pytest.approx(roofline["gflops"] / possible)
    assert roofline["bound"] == ("arithmetic" if bound else "memory")
    for part in split["parts"]:
        reach = 2 * part["macs"] / part["bytes"] * roofline["bandwidth_gbs"]
        possible = min(reach, roofline["peak_gflops"])
        assert part["share_of_peak"] == pytest.approx(part["gflops"] / possible)
    again = measure_roofline(report["subject"], split, threads=1)
    add_shares(split, {**again, "bandwidth_gbs": 1e9, "peak_gflops": 1e3}, batch=1)
    assert split["parts"][0]["share_of_peak"] == split["parts"][0]["gflops"] / 1e3


def test_another_library_has_no_roofline_and_the_reason(monkeypatch, built: Path) -> None:
    monkeypatch.setattr(
        explain_module, "measure_split", lambda *names, **more: {"parts": [], "plain_ms": 1.0}
    )
    subject = {"plan": "auto-fp32-auto", "backend": "mixed", "precision": "fp32"}
    _, roofline, why = explain_module.explain(built, subject, image_of(built), threads=1)
    assert roofline is None
    assert "only ONNX Runtime's profiler looks into engines" in why["roofline"]
    subject = {**subject, "backend": "fake"}
    _, _, why = explain_module.explain(built, subject, image_of(built), threads=1)
    assert "the peak that is measured is that of float32 on the CPU" in why["roofline"]


def test_a_missing_package_is_a_reason_and_not_the_end(monkeypatch, built: Path) -> None:
    def missing(*names: str) -> None:
        raise MissingExtraError("onnx", "export")

    monkeypatch.setattr(explain_module, "import_for", missing)
    key = plans(built)["onnxruntime, one"]
    subject = {"plan": key, "backend": "onnxruntime", "precision": "fp32"}
    split, roofline, why = explain_module.explain(built, subject, image_of(built), threads=1)
    assert split is not None
    assert roofline is None
    assert "onnx" in why["roofline"]
