"""Calibrate and quantize the demo network: what is published, what is refused, what is resumed."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import onnx
import pytest

from parnet_deploy.deployment import Deployment
from parnet_deploy.errors import CheckFailedError, DeploymentError, InputError, SpecError
from parnet_deploy.export.export_step import export_to_deployment
from parnet_deploy.input_size import InputSize
from parnet_deploy.quantize import quantize_step
from parnet_deploy.quantize.calibrate_step import CalibrateOptions, calibrate, read_calibration
from parnet_deploy.quantize.calibration_set import LoadedSet
from parnet_deploy.quantize.convert import TARGETS, list_layers
from parnet_deploy.quantize.gates import Gates
from parnet_deploy.quantize.options import QuantizeOptions, report_name
from parnet_deploy.quantize.quantize_step import quantize_to_deployment
from parnet_deploy.quantize.table import TABLE, read_table
from parnet_deploy.reference import Reference
from parnet_deploy.runtime.onnxruntime.cpu import run_once
from parnet_deploy.spec import IMAGE, LOGITS

LIMITS = (64, 127)  # of processors without and with VNNI; the kernels of this one take both


def files_of(directory: Path) -> dict[str, bytes]:
    files = (p for p in directory.rglob("*") if p.is_file() and not p.name.startswith("."))
    return {str(p.relative_to(directory)): p.read_bytes() for p in files}


def quantize(digits, directory, target="int8-cpu", **options):
    calibration = options.pop("calibration", digits.calibration)
    tell = options.pop("tell", lambda text: None)
    sets = options.pop("sets", digits.few)
    made = QuantizeOptions(target=target, **options)
    return quantize_to_deployment(directory, sets, made, calibration=calibration, on_stage=tell)


@pytest.mark.parametrize("method", ["minmax", "percentile", "entropy", "mse"])
def test_int8_of_the_demo_network_keeps_its_accuracy_with_every_method(
    digits, exported, method
) -> None:
    clean = digits.data.sets["clean"]
    ranges = calibrate(exported, digits.data.calibration, clean, CalibrateOptions(method=method))
    report = quantize(
        digits,
        exported,
        calibration=ranges,
        weight_limit=64,
        search=False,
        sets=digits.data.sets,
    ).report
    scores = report["measured"]["emulated"]  # exact on any processor
    assert scores["clean"]["drop_points"] <= 1
    assert scores["noisy"]["drop_points"] <= 1.5
    assert scores["clean"]["sqnr_db"] >= 20


@pytest.mark.parametrize("target", TARGETS)
def test_a_precision_is_published_with_its_table_report_and_reference(
    digits, exported, target
) -> None:
    report = quantize(digits, exported, target, weight_limit=64).report
    deployment = Deployment.open(exported)
    assert f"quantize:{target}" in deployment.steps
    assert read_table(deployment).images == 256
    assert json.loads(deployment.read_bytes(report_name(target))) == report
    for part in digits.spec.parts:
        onnx.checker.check_model(
            onnx.load_from_string(deployment.read_bytes(f"onnx-{target}/{part.name}.onnx"))
        )
    stored = Reference.unpack(deployment.read_bytes(f"onnx-{target}/reference.npz"), "")
    values = {IMAGE: stored.image}
    for part in digits.spec.parts:
        graph = deployment.read_bytes(f"onnx-{target}/{part.name}.onnx")
        feeds = {name: values[name] for name in part.inputs}
        values |= run_once(graph, feeds, emulate=True)
    np.testing.assert_allclose(values[LOGITS], stored.logits, atol=1e-5)
    assert all(check["passed"] for check in report["checks"])
    assert report["bytes_after"] < 0.7 * report["bytes_before"]


def test_the_same_again_is_skipped_and_other_gates_are_not(digits, exported) -> None:
    assert not quantize(digits, exported).skipped
    found = calibrate(exported, digits.data.calibration, digits.data.sets["clean"])
    assert found.current
    assert quantize(digits, exported, calibration=found).skipped
    assert quantize(digits, exported, calibration=None).skipped
    assert not quantize(digits, exported, gates=Gates(min_sqnr_db=10)).skipped


def test_a_failed_gate_publishes_nothing_and_leaves_what_was_there(digits, exported) -> None:
    quantize(digits, exported)
    before = files_of(exported)
    with pytest.raises(CheckFailedError, match=r"clean logit SQNR: got .* at least 60") as caught:
        quantize(digits, exported, gates=Gates(min_sqnr_db=60), search=False)
    assert caught.value.exit_code == 3
    assert files_of(exported) == before


def test_calibration_on_another_domain_is_refused_and_a_good_table_stays(digits, exported) -> None:
    quantize(digits, exported)
    before = files_of(exported)
    images = digits.data.calibration
    dark = replace(images, images=0.01 * images.images - 0.85, sha256="0" * 64)
    wrong = calibrate(exported, dark, digits.data.sets["clean"])
    assert wrong.report["clipped"] > 0.05 > 0.001 > digits.calibration.report["clipped"]
    for target in TARGETS:
        with pytest.raises(CheckFailedError, match="values clipped on held-out images"):
            quantize(digits, exported, target, calibration=wrong)
    assert files_of(exported) == before


def test_ranges_that_are_far_too_narrow_are_refused_by_the_logits(digits, exported) -> None:
    table = digits.calibration.table
    narrow = {
        name: replace(found, low=0.1 * found.low, high=0.1 * found.high)
        for name, found in table.tensors.items()
    }
    calibration = replace(digits.calibration, table=replace(table, tensors=narrow))
    for target in ("int8-cpu", "int8-trt"):
        with pytest.raises(CheckFailedError, match="clean logit SQNR"):
            quantize(digits, exported, target, calibration=calibration, search=False)


def test_a_deployment_without_ranges_names_the_next_step(digits, exported) -> None:
    with pytest.raises(DeploymentError, match="Run: parnet-deploy calibrate IMAGES"):
        quantize(digits, exported, calibration=None)


def test_a_table_of_another_model_is_refused(digits, exported) -> None:
    export_to_deployment(exported, InputSize(low=(64, 64), high=(64, 64)))
    with pytest.raises(DeploymentError, match="got the ranges of another model"):
        quantize(digits, exported)


def test_a_table_of_another_preprocessing_is_refused(digits, exported) -> None:
    other = {**digits.calibration.table.preprocessing, "mean": [0.1, 0.1, 0.1]}
    table = replace(digits.calibration.table, preprocessing=other)
    with pytest.raises(DeploymentError, match=r"another preprocessing \(mean\)"):
        quantize(digits, exported, calibration=replace(digits.calibration, table=table))


def test_a_new_export_drops_the_table_and_the_graphs(digits, exported) -> None:
    quantize(digits, exported)
    export_to_deployment(exported, InputSize(low=(64, 64), high=(64, 64)))
    deployment = Deployment.open(exported)
    assert not {"calibrate", "quantize:int8-cpu"} & set(deployment.steps)
    assert not [name for name in deployment.artifacts if name.startswith("onnx-int8")]


def test_another_table_leaves_the_precisions_that_were_made_with_the_old_one(
    digits, exported
) -> None:
    quantize(digits, exported, "int8-trt")
    other = calibrate(
        exported,
        digits.data.calibration,
        digits.data.sets["clean"],
        CalibrateOptions(method="mse"),
    )
    quantize(digits, exported, "int8-cpu", calibration=other)
    steps = Deployment.open(exported).steps
    assert {"quantize:int8-trt", "quantize:int8-cpu", "calibrate"} <= set(steps)
    assert read_calibration(Deployment.open(exported)).table.method == "mse"


def test_the_search_puts_harmful_layers_back_until_the_gates_pass(digits, exported) -> None:
    said: list[str] = []
    start = quantize(digits, exported, weight_limit=64).report
    target = start["measured"]["kernel"]["clean"]["sqnr_db"] + 3
    report = quantize(
        digits, exported, weight_limit=64, gates=Gates(min_sqnr_db=target), tell=said.append
    ).report
    kept = [row for row in report["layers"] if row["precision"] == "fp32"]
    assert kept
    assert all(row["reason"] for row in kept)
    assert report["measured"]["kernel"]["clean"]["sqnr_db"] >= target
    assert 0.5 <= report["low_share"] < 1
    assert len(report["search"]) == len(kept) + 1
    assert [len(step["keep"]) for step in report["search"]] == list(range(len(kept) + 1))
    assert len(set(report["parts"].values())) > 1  # streams ended in different precisions
    assert any("1 layer in float32: " in line for line in said)
    graph = onnx.load_from_string(
        Deployment.open(exported).read_bytes(f"onnx-int8-cpu/{kept[0]['part']}.onnx")
    )
    names = {w.name for w in graph.graph.initializer}
    assert any(n.startswith(f"{kept[0]['layer']}.") and n.endswith(".weight") for n in names)


def test_the_search_gives_up_when_the_speed_is_gone(digits, exported) -> None:
    before = files_of(exported)
    with pytest.raises(CheckFailedError, match=r"at least 50% must stay.*It was not published"):
        quantize(digits, exported, gates=Gates(min_sqnr_db=120))
    assert files_of(exported) == before


def test_an_interrupted_search_goes_on_where_it_was(digits, exported, monkeypatch) -> None:
    gates = Gates(min_sqnr_db=33)
    measured: list[str] = []
    honest = quantize_step.sensitivity

    def interrupted(full, only, layers, images, known, on_layer):
        def stop_after_five(layer, found):
            on_layer(layer, found)
            measured.append(layer.name)
            if len(measured) == 5:
                raise KeyboardInterrupt

        return honest(full, only, layers, images, known, stop_after_five)

    monkeypatch.setattr(quantize_step, "sensitivity", interrupted)
    with pytest.raises(KeyboardInterrupt):
        quantize(digits, exported, gates=gates)
    assert Deployment.open(exported).verify().foreign == ()
    said: list[str] = []
    report = quantize(digits, exported, gates=gates, tell=said.append).report
    assert "going on with an interrupted search" in said
    assert len(measured) == len(set(measured)) == len(report["layers"])
    assert not list(exported.glob(".search-*"))


def test_other_gates_do_not_reuse_an_interrupted_search(digits, exported, monkeypatch) -> None:
    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(quantize_step, "sensitivity", interrupt)
    with pytest.raises(KeyboardInterrupt):
        quantize(digits, exported, gates=Gates(min_sqnr_db=33))
    said: list[str] = []
    quantize(digits, exported, tell=said.append)
    assert "going on with an interrupted search" not in said


def test_a_layer_that_is_asked_for_stays_in_float32(digits, exported) -> None:
    report = quantize(digits, exported, keep=("streams.1.0", "head")).report
    kept = {row["layer"] for row in report["layers"] if row["precision"] == "fp32"}
    assert kept == {"streams.1.0", "head"}
    with pytest.raises(SpecError, match=r"layer to keep: got 'streams\.9'"):
        quantize(digits, exported, keep=("streams.9",))


def test_float16_keeps_a_layer_that_overflows_in_float32_and_says_which(digits, exported) -> None:
    table = digits.calibration.table
    tensor = next(name for name in table.tensors if name.startswith("streams.2.1/"))
    large = replace(table.tensors[tensor], max=3e4)
    tensors = {**table.tensors, tensor: large}
    calibration = replace(digits.calibration, table=replace(table, tensors=tensors), current=False)
    report = quantize(digits, exported, "fp16", calibration=calibration).report
    kept = {r["layer"]: r["reason"] for r in report["layers"] if r["precision"] == "fp32"}
    assert kept == {"streams.2.1": f"does not fit float16: {tensor} reaches 3e+04"}


def test_too_few_calibration_images_are_refused(digits, exported) -> None:
    images = digits.data.calibration
    few = LoadedSet(name="calibration", images=images.images[:3], classes=None, sha256="0")
    with pytest.raises(InputError, match="calibration images: got 3, expected at least 16"):
        calibrate(exported, few, images)


def test_images_of_another_size_are_refused(digits, exported) -> None:
    wide = np.random.default_rng(0).random((20, 3, 64, 64), np.float32)
    images = LoadedSet(name="calibration", images=wide, classes=None, sha256="0")
    with pytest.raises(SpecError, match="input size: got 64x64, expected 32x32"):
        calibrate(exported, images, digits.data.sets["clean"])


COLOURS = np.arange(20, dtype=np.float32)[:, None, None, None]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda images: images[:1].repeat(20, axis=0), "got the same image 20 times"),
        (lambda images: images[:20] * 0 + COLOURS, "got one colour 20 times"),
    ],
)
def test_images_that_prove_nothing_are_refused(digits, exported, change, message) -> None:
    before = files_of(exported)
    images = digits.data.calibration
    flat = replace(images, images=np.ascontiguousarray(change(images.images)))
    with pytest.raises(InputError, match=f"calibration images: {message}"):
        calibrate(exported, flat, digits.data.sets["clean"])
    sets = {"clean": replace(flat, classes=None)}
    with pytest.raises(InputError, match=f"clean images to evaluate on: {message}"):
        quantize_to_deployment(exported, sets, calibration=digits.calibration)
    few = {"clean": replace(images, images=images.images[:7], classes=None)}
    with pytest.raises(InputError, match="images to evaluate on: got 7, expected at least 8"):
        quantize_to_deployment(exported, few, calibration=digits.calibration)
    assert files_of(exported) == before


def test_a_precision_in_which_next_to_nothing_would_run_is_refused(digits, exported) -> None:
    before = files_of(exported)
    layers = [layer.name for layer in list_layers(Deployment.open(exported).spec, (32, 32))]
    with pytest.raises(CheckFailedError, match=r"0% of the work in low precision.*were kept out"):
        quantize(digits, exported, keep=tuple(layers))
    assert files_of(exported) == before


def test_nan_on_the_way_names_tensor_and_images(digits, exported) -> None:
    images = digits.data.calibration
    bad = images.images.copy()
    bad[5] = 1e38
    with pytest.raises(InputError, match="got NaN or Inf in images"):
        calibrate(exported, replace(images, images=bad), digits.data.sets["clean"])


def test_the_report_has_the_figures_that_it_promises(digits, exported) -> None:
    report = quantize(digits, exported).report
    assert {row["layer"] for row in report["layers"]} >= {"inits.0.0", "combine.3", "head"}
    assert all(10 < row["sqnr_db"] < 200 for row in report["layers"])
    assert report["latency"]["low_ms"] > 0
    assert report["calibration"]["method"] == "minmax"
    assert set(report["ranges"]) == set(digits.calibration.table.tensors)
    assert sum(report["histograms"][IMAGE]["counts"]) == 32 * 3 * 32 * 32
    assert report["machine"]["cpu"]


class Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag, attrs) -> None:
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href")]


def test_the_html_report_is_one_file_with_pictures(digits, exported) -> None:
    quantize(digits, exported, gates=Gates(min_sqnr_db=31))
    text = (exported / report_name("int8-cpu", "html")).read_text()
    page = Page()
    page.feed(text)
    assert page.links == []
    assert page.tags.count("script") == page.tags.count("link") == 0
    assert page.tags.count("svg") >= len(digits.spec.parts)
    assert page.tags.count("rect") > 100
    assert "://" not in re.sub(r'xmlns="[^"]*"', "", text)
    assert "streams.2.1" in text
    assert TABLE not in page.tags
