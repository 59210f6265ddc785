"""The converter of MNN: the same network comes out, and a failure is ours."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from parnet_deploy.builder.build import BuildOptions, build_to_deployment
from parnet_deploy.builder.convert.convert import convert_graph
from parnet_deploy.builder.convert.to_mnn import convert
from parnet_deploy.errors import EngineBuildError, MissingExtraError
from parnet_deploy.input_size import InputSize
from parnet_deploy.placement import one
from parnet_deploy.runtime.session import Runtime
from tests.runtime.runtime_toys import SPECS, fixed_size, images, onnx_segment, reference
from tests.toy_deployments import export_toy

pytest.importorskip("MNN")

SPEC = SPECS[2]


def toy_graph() -> bytes:
    return onnx_segment(SPEC, one(SPEC).segments[0], fixed_size(SPEC)).SerializeToString()


def graph_of(node: onnx.NodeProto) -> bytes:
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 4]) for n in ("x", "y")]
    graph = helper.make_graph([node], "graph", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return model.SerializeToString()


def to_mnn(graph: bytes, output, precision="fp32"):
    return convert_graph(graph, output, backend="mnn", precision=precision, name="all")


def test_a_graph_becomes_a_file_and_the_version_is_told(tmp_path) -> None:
    made = to_mnn(toy_graph(), tmp_path / "all.mnn")
    assert made["converter"] == {"mnn": sys.modules["MNN"].version()}
    assert (tmp_path / "all.mnn").stat().st_size > 1000


def test_weights_stay_float32(tmp_path) -> None:
    to_mnn(toy_graph(), tmp_path / "all.mnn")
    data, model = (tmp_path / "all.mnn").read_bytes(), onnx.load_from_string(toy_graph())
    for tensor in model.graph.initializer:
        assert onnx.numpy_helper.to_array(tensor).astype(np.float32).tobytes() in data


@pytest.mark.parametrize("graph", [b"not a model", b""])
def test_what_is_no_graph_is_refused(tmp_path, graph) -> None:
    with pytest.raises(EngineBuildError, match=r"converter of mnn: (it wrote no file|its process)"):
        to_mnn(graph, tmp_path / "all.mnn")
    assert not (tmp_path / "all.mnn").exists()


def test_a_crash_of_the_converter_is_a_failure_of_the_build(tmp_path) -> None:
    """The sum of one tensor is legal in ONNX, and ends the converter of MNN 3.6.1."""
    with pytest.raises(EngineBuildError, match="segment all, converter of mnn: its process was"):
        to_mnn(graph_of(helper.make_node("Sum", ["x"], ["y"])), tmp_path / "all.mnn")
    assert not (tmp_path / "all.mnn").exists()


def test_a_deployment_is_built_proved_and_opened(tmp_path) -> None:
    directory = export_toy(tmp_path / "toy", SPEC, InputSize(low=(16, 16), high=(48, 48)))
    build_to_deployment(directory, BuildOptions(backend="mnn", placement="streams", max_batch=2))
    with Runtime.open(directory) as runtime:
        assert runtime.describe()["backend"] == "mnn"
        for size in ((16, 16), (48, 32)):
            x = images(SPEC, 2, size=size)
            np.testing.assert_allclose(runtime(x), reference(SPEC, x), rtol=1e-5, atol=1e-6)


def test_a_lower_precision_is_refused(tmp_path) -> None:
    with pytest.raises(EngineBuildError, match="got precision int8, expected fp32"):
        to_mnn(toy_graph(), tmp_path / "all.mnn", "int8")


def test_without_its_converter_the_extra_is_named(tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "_tools", None)
    with pytest.raises(MissingExtraError, match=r"parnet-deploy\[mnn\]"):
        convert(tmp_path / "in.onnx", tmp_path / "out.mnn", precision="fp32")


def test_a_converter_that_writes_nothing_has_failed(tmp_path, monkeypatch) -> None:
    silent = SimpleNamespace(mnnconvert=lambda arguments: True)
    monkeypatch.setitem(sys.modules, "_tools", silent)
    with pytest.raises(EngineBuildError, match="it wrote no file"):
        convert(tmp_path / "in.onnx", tmp_path / "out.mnn", precision="fp32")
