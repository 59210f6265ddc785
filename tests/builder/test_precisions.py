"""build --precision: engines from the graphs of a precision, proved, with a canary of their own."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from parnet_deploy import Runtime
from parnet_deploy.bench.bench_step import BenchOptions, bench_to_deployment
from parnet_deploy.builder import engines, make, planner
from parnet_deploy.builder.build import BuildOptions, build_to_deployment
from parnet_deploy.builder.precisions import find_sources, source_of
from parnet_deploy.builder.tensorrt.graph_facts import read_graph
from parnet_deploy.builder.verify_step import verify_to_deployment
from parnet_deploy.compare import ENGINE_TOLERANCE
from parnet_deploy.deployment import Deployment
from parnet_deploy.errors import CheckFailedError, DeploymentError, EngineBuildError, SpecError
from parnet_deploy.quantize.calibrate_step import calibrate
from parnet_deploy.quantize.options import QuantizeOptions
from parnet_deploy.quantize.prepare import Data, DataOptions, ImageSource, load_data
from parnet_deploy.quantize.quantize_step import quantize_to_deployment
from parnet_deploy.reference import Reference
from tests.builder.test_gpus import machine

DIGITS = Path(__file__).parents[2] / "calibration/digits"
TARGETS = ("fp16", "int8-cpu", "int8-trt")


@pytest.fixture(scope="session")
def images(exported_once: Path) -> Data:
    options = DataOptions(
        calibration=ImageSource(paths=(DIGITS / "calibration",)),
        evaluation=ImageSource(paths=(DIGITS / "eval",)),
        samples=64,
        eval_samples=60,
        noise=0,
    )
    return load_data(exported_once, options)


@pytest.fixture
def quantized(exported: Path, images: Data) -> Path:
    """An exported deployment with every precision."""
    ranges = calibrate(exported, images.calibration, images.sets["clean"])
    for target in TARGETS:
        quantize_to_deployment(
            exported, images.sets, QuantizeOptions(target=target), calibration=ranges
        )
    return exported


@pytest.mark.parametrize("placement", ["one", "streams"])
@pytest.mark.parametrize(("precision", "target"), [("int8", "int8-cpu"), ("fp16", "fp16")])
def test_engines_answer_as_their_graph_does(quantized, images, precision, target, placement):
    options = BuildOptions(precision=precision, placement=placement)
    report = build_to_deployment(quantized, options).report
    assert report["plan"] == f"onnxruntime-{precision}-{placement}"
    assert report["precision"] == precision
    deployment = Deployment.open(quantized)
    assert deployment.plans[report["plan"]]["precision"] == precision
    stored = Reference.unpack(deployment.read_bytes(f"onnx-{target}/reference.npz"), "")
    clean = images.sets["clean"]
    with Runtime.open(quantized) as runtime:
        assert runtime.describe()["precision"] == precision
        assert (
            runtime.describe()["canary"]["error"]
            <= report["made"]["tolerance"]
            == {
                "int8": 3e-2,
                "fp16": 2e-2,
            }[precision]
        )
        np.testing.assert_allclose(
            runtime(stored.image), stored.logits, atol=3e-2 * np.abs(stored.logits).max()
        )
        answers = np.concatenate([runtime(x[None]) for x in clean.images]).argmax(1)
    assert (answers == clean.classes).mean() > 0.95


def test_the_engine_is_in_8_bits_and_smaller(quantized) -> None:
    for precision in ("fp32", "int8"):
        build_to_deployment(quantized, BuildOptions(precision=precision, placement="one"))
    deployment = Deployment.open(quantized)
    full, low = (
        deployment.read_bytes(f"plans/onnxruntime-{p}-one/all.onnx") for p in ("fp32", "int8")
    )
    assert len(low) < 0.7 * len(full)
    graph = onnx.load_from_string(low).graph
    kinds = [weight.data_type for weight in graph.initializer]
    assert kinds.count(onnx.TensorProto.INT8) > 20
    coded = [node.input[0] for node in graph.node if node.op_type == "QuantizeLinear"]
    assert len(coded) == len(set(coded))


def test_auto_measures_every_precision_and_keeps_the_fastest(quantized, monkeypatch) -> None:
    monkeypatch.setattr(planner, "pick", lambda latencies, single: list(latencies)[-1])
    report = build_to_deployment(quantized, BuildOptions(precision="auto", placement="one")).report
    table = report["measured"]["candidates"]
    assert [row["precision"] for row in table] == ["fp32", "fp16", "int8"]
    assert [row["chosen"] for row in table] == [False, False, True]
    assert report["precision"] == "int8"
    assert report["plan"] == "onnxruntime-auto-one"
    deployment = Deployment.open(quantized)
    canary = deployment.read_bytes("plans/onnxruntime-auto-one/canary.npz")
    assert canary == deployment.read_bytes("onnx-int8-cpu/reference.npz")


def test_auto_takes_only_what_passed_its_gates(quantized) -> None:
    with Deployment.edit(quantized) as txn:
        txn.drop_step("quantize:int8-cpu")
    found = find_sources(Deployment.open(quantized), "onnxruntime", "auto")
    assert [source.precision for source in found] == ["fp32", "fp16"]


def test_each_backend_gets_its_own_int8_graphs(quantized) -> None:
    deployment = Deployment.open(quantized)
    folders = {
        backend: find_sources(deployment, backend, "int8")[0].folder
        for backend in ("onnxruntime", "openvino", "tensorrt", "fake")
    }
    assert folders == {
        "onnxruntime": "onnx-int8-cpu",
        "openvino": "onnx-int8-cpu",
        "tensorrt": "onnx-int8-trt",
        "fake": "onnx-int8-cpu",
    }
    with pytest.raises(SpecError, match="got int8 with backend onnxruntime-cuda"):
        find_sources(deployment, "onnxruntime-cuda", "int8")


def test_bfloat16_is_made_of_the_float32_graphs(exported) -> None:
    deployment = Deployment.open(exported)
    (source,) = find_sources(deployment, "openvino", "bf16")
    assert source == source_of("openvino", "bf16")
    (full,) = find_sources(deployment, "openvino", "fp32")
    assert (source.folder, source.reference, source.step) == ("onnx", "reference.npz", "export")
    assert source.files(deployment) == full.files(deployment)
    assert (source.precision, source.tolerance) == ("bf16", 2e-2)


@pytest.mark.parametrize("backend", ["onnxruntime", "onnxruntime-cuda", "tensorrt", "fake", "mnn"])
def test_bfloat16_elsewhere_is_refused(exported, backend) -> None:
    message = f"got bf16 with backend {backend}, .* expected backend openvino.* --precision fp32"
    with pytest.raises(SpecError, match=message):
        find_sources(Deployment.open(exported), backend, "bf16")


@pytest.mark.slow
def test_openvino_computes_in_8_bits(quantized) -> None:
    pytest.importorskip("parnet_deploy.runtime.openvino.library", reason="needs openvino")
    options = BuildOptions(backend="openvino", precision="int8", placement="one")
    report = build_to_deployment(quantized, options).report
    assert report["made"]["engines"]["all"]["converter"]["int8_convolutions"] > 20
    with Runtime.open(quantized) as runtime:
        assert runtime.describe()["backend"] == "openvino"
        assert runtime.describe()["canary"]["error"] <= 3e-2


@pytest.mark.parametrize(
    ("precision", "expected"), [("fp32", "fp32"), ("fp16", "fp16"), ("int8", "int8")]
)
def test_tensorrt_is_given_the_graph_that_speaks_of_the_precision(
    quantized, monkeypatch, precision, expected
) -> None:
    graphs: list[bytes] = []

    def build_engine(graph, output, **options):
        graphs.append(graph)
        raise EngineBuildError("engine all: no GPU in this test.")

    machine(monkeypatch, ["9.0"])
    monkeypatch.setattr(engines, "build_engine", build_engine)
    with pytest.raises(EngineBuildError):
        build_to_deployment(
            quantized, BuildOptions(precision=precision, gpus=(0,), placement="one")
        )
    facts = read_graph(graphs[0], "all")
    assert facts.precision == expected
    assert facts.quantized == (precision == "int8")


@pytest.mark.parametrize("precision", ["int8", "fp16", "auto"])
def test_without_graphs_the_next_step_is_named(exported, precision) -> None:
    with pytest.raises(DeploymentError, match="Run: parnet-deploy calibrate IMAGES"):
        build_to_deployment(exported, BuildOptions(precision=precision))


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(SpecError, match="precision: got 'int4', expected one of fp32, fp16"):
        BuildOptions(precision="int4")


def test_unchanged_is_skipped_and_new_graphs_are_not(quantized, images) -> None:
    options = BuildOptions(precision="int8", placement="one")
    assert not build_to_deployment(quantized, options).skipped
    assert build_to_deployment(quantized, options).skipped
    quantize_to_deployment(
        quantized, images.sets, QuantizeOptions(target="int8-cpu", keep=("head",))
    )
    assert options.plan_key not in Deployment.open(quantized).plans  # made from the old graphs
    assert not build_to_deployment(quantized, options).skipped


def test_int8_runs_on_several_simulated_devices(quantized) -> None:
    options = BuildOptions(precision="int8", backend="fake", gpus=(0, 1, 2))
    assert build_to_deployment(quantized, options).report["precision"] == "int8"
    with Runtime.open(quantized, backend="fake") as runtime:
        assert runtime.describe()["canary"]["passed"]


def test_a_wrong_engine_is_not_published(quantized, monkeypatch) -> None:
    honest = make.merge_segment

    def channels_moved(*args):
        model = honest(*args)
        name = "combine.3.conv.weight/quantized"
        weight = next(w for w in model.graph.initializer if w.name == name)
        values = np.roll(onnx.numpy_helper.to_array(weight), 1, axis=0)
        weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
        return model

    monkeypatch.setattr(make, "merge_segment", channels_moved)
    with pytest.raises(CheckFailedError, match="engine all, logits: error"):
        build_to_deployment(quantized, BuildOptions(precision="int8", placement="one"))
    assert Deployment.open(quantized).plans == {}


def test_another_machine_whose_kernels_saturate_is_noticed_at_open(quantized) -> None:
    key = build_to_deployment(quantized, BuildOptions(precision="int8", placement="one")).report[
        "plan"
    ]
    deployment = Deployment.open(quantized)
    name = f"plans/{key}/canary.npz"
    stored = Reference.unpack(deployment.read_bytes(name), "")
    drifted = stored.logits + np.float32(0.1) * np.abs(stored.logits).max()
    with Deployment.edit(quantized) as txn:  # what this machine computes is now the other answer
        for file in sorted(deployment.artifacts):
            if file.startswith(f"plans/{key}/"):
                content = deployment.read_bytes(file)
                if file == name:
                    content = Reference(image=stored.image, logits=drifted).pack()
                txn.stage(file).write_bytes(content)
        record = deployment.steps[f"build:{key}"]
        txn.finish_step(
            f"build:{key}",
            key=record["key"],
            made_from=set(record["made_from"]),
            plans={key: deployment.plans[key]},
        )
    with pytest.raises(CheckFailedError, match=r"canary of .*int8-one"):
        Runtime.open(quantized)


def test_verify_holds_each_plan_against_its_own_graphs(quantized, images) -> None:
    for precision in ("fp32", "int8"):
        build_to_deployment(quantized, BuildOptions(precision=precision, placement="one"))
    report = verify_to_deployment(
        quantized, images=images.sets["clean"].images[:3], trained=None
    ).report
    limits = {
        key: {check["tolerance"] for check in checks} for key, checks in report["plans"].items()
    }
    assert limits == {
        "onnxruntime-fp32-one": {ENGINE_TOLERANCE},
        "onnxruntime-int8-one": {3e-2},
    }


def test_bench_times_an_int8_plan(quantized) -> None:
    build_to_deployment(quantized, BuildOptions(precision="int8", placement="one"))
    report = bench_to_deployment(quantized, BenchOptions(rounds=2)).report
    ours = report["arms"]["parnet-deploy"]
    assert ours["check"]["what"].startswith("canary of ")
    assert ours["check"]["limit"] == 3e-2
    assert ours["precision"] == report["subject"]["precision"] == "int8"
    assert json.dumps(report)
