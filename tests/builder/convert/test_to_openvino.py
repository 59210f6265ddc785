"""ONNX to OpenVINO: the same answers, and 8-bit weights that are computed with as such."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

pytest.importorskip("parnet_deploy.runtime.openvino.library", reason="needs openvino")

from parnet_deploy import Runtime
from parnet_deploy.builder.build import BuildOptions, build_to_deployment
from parnet_deploy.builder.convert.convert import convert_graph
from parnet_deploy.builder.convert.to_openvino import convert
from parnet_deploy.deployment import Deployment
from parnet_deploy.errors import EngineBuildError
from parnet_deploy.placement import one
from parnet_deploy.runtime.openvino.engine_format import unpack_network
from parnet_deploy.runtime.openvino.library import ov
from tests.runtime.runtime_toys import SPECS, fixed_size, onnx_segment

HAS_BF16 = "BF16" in ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
BATCH = 5


def write(path: Path, *, activations: bool = True) -> Path:
    """Two convolutions: one in float32, one with 8-bit weights and, if so asked, 8-bit inputs."""
    rng = np.random.default_rng(0)
    constants = {
        "w0": rng.standard_normal((16, 3, 3, 3)).astype(np.float32),
        "w1": rng.integers(-63, 64, (16, 16, 3, 3), dtype=np.int8),
        "by_channel": rng.uniform(0.01, 0.02, 16).astype(np.float32),
        "zeros": np.zeros(16, np.int8),
        "step": np.float32(0.05),
        "zero": np.uint8(0),
    }
    code = [
        helper.make_node("QuantizeLinear", ["b", "step", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "step", "zero"], ["c"]),
    ]
    nodes = [
        helper.make_node("Conv", ["x", "w0"], ["a"], name="floats", pads=[1] * 4),
        helper.make_node("Relu", ["a"], ["b"]),
        *(code if activations else [helper.make_node("Identity", ["b"], ["c"])]),
        helper.make_node("DequantizeLinear", ["w1", "by_channel", "zeros"], ["w"], axis=0),
        helper.make_node("Conv", ["c", "w"], ["y"], name="codes", pads=[1] * 4),
    ]
    graph = helper.make_graph(
        nodes,
        "two",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, "h", "w"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 16, "h", "w"])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.save(model, path)
    return path


def test_weights_stay_in_float32(tmp_path: Path) -> None:
    """Unless told otherwise, OpenVINO stores them in float16."""
    spec = SPECS[3]
    model = onnx_segment(spec, one(spec).segments[0], fixed_size(spec))
    onnx.save(model, tmp_path / "all.onnx")
    output = tmp_path / "all.openvino"
    assert convert(tmp_path / "all.onnx", output, precision="fp32") == {"openvino": ov.__version__}
    xml, weights = unpack_network(output.read_bytes())
    assert 'element_type="f16"' not in xml
    written = sum(numpy_helper.to_array(weight).nbytes for weight in model.graph.initializer)
    assert weights.nbytes >= written


def test_convolutions_in_8_bits_are_counted(tmp_path: Path) -> None:
    graph = write(tmp_path / "two.onnx")
    facts = convert(graph, tmp_path / "two.openvino", precision="int8")
    assert facts["int8_convolutions"] == 1


def test_what_openvino_does_not_compute_in_8_bits_is_refused(tmp_path: Path) -> None:
    graph = write(tmp_path / "two.onnx", activations=False)
    output = tmp_path / "two.openvino"
    with pytest.raises(EngineBuildError, match=r"got 0 convolutions .* expected the 1 that"):
        convert(graph, output, precision="int8")
    assert not output.exists()


def test_a_graph_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(EngineBuildError, match="OpenVINO cannot convert it: "):
        convert_graph(
            b"no graph",
            tmp_path / "all.openvino",
            backend="openvino",
            precision="fp32",
            name="all",
        )


@pytest.mark.parametrize(
    ("precision", "least", "most"),
    [
        ("fp32", 0, 1e-4),
        pytest.param(
            "bf16",
            1e-4,
            2e-2,
            marks=pytest.mark.skipif(not HAS_BF16, reason="needs a CPU with bfloat16"),
        ),
    ],
)
def test_a_trained_network(exported: Path, precision: str, least: float, most: float) -> None:
    """Batches too: compiled for any batch in bfloat16, OpenVINO has answered with an error of 1."""
    build_to_deployment(exported, BuildOptions(placement="one"))
    options = BuildOptions(
        backend="openvino", precision=precision, placement="one", max_batch=BATCH
    )
    report = build_to_deployment(exported, options).report
    assert report["made"]["tolerance"] == most
    assert report["made"]["engines"]["all"]["converter"] == {"openvino": ov.__version__}
    folder = Deployment.open(exported).path / "plans" / report["plan"]
    assert {path.suffix for path in folder.iterdir()} == {".openvino", ".json", ".npz"}
    images = np.random.default_rng(0).standard_normal((BATCH, 3, 32, 32)).astype(np.float32)
    with (
        Runtime.open(exported, backend="onnxruntime") as ours,
        Runtime.open(exported, backend="openvino") as theirs,
    ):
        assert theirs.describe()["precision"] == precision
        for n in (1, BATCH):
            expected = ours(images[:n])
            error = np.abs(theirs(images[:n]) - expected).max() / np.abs(expected).max()
            assert least <= error < most
