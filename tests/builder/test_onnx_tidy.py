from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from parnet_deploy.builder.onnx_tidy import join_codes
from parnet_deploy.runtime.onnxruntime.cpu import run_once


def pair(name: str, source: str, scale: str = "s") -> list[onnx.NodeProto]:
    return [
        helper.make_node("QuantizeLinear", [source, scale, "z"], [f"{name}_q"], name=f"{name}/q"),
        helper.make_node("DequantizeLinear", [f"{name}_q", scale, "z"], [name], name=f"{name}/dq"),
    ]


def model(nodes: list[onnx.NodeProto], outputs: list[str]) -> onnx.ModelProto:
    values = {"s": np.float32(0.1), "other": np.float32(0.2), "same": np.float32(0.1)}
    constants = [numpy_helper.from_array(np.array(v), k) for k, v in values.items()]
    constants.append(numpy_helper.from_array(np.array(7, np.uint8), "z"))
    made = helper.make_model(
        helper.make_graph(
            nodes,
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None])],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None]) for name in outputs],
            constants,
        ),
        opset_imports=[helper.make_opsetid("", 17)],
    )
    made.ir_version = 8
    return made


def relu(source: str, target: str) -> onnx.NodeProto:
    return helper.make_node("Relu", [source], [target], name=target)


def names(found: onnx.ModelProto) -> list[str]:
    return [node.name for node in found.graph.node]


def same_answer(before: onnx.ModelProto, after: onnx.ModelProto) -> bool:
    onnx.checker.check_model(after, full_check=True)
    x = np.linspace(-3, 30, 5001, dtype=np.float32)
    first, second = (run_once(m.SerializeToString(), {"x": x}) for m in (before, after))
    return all(np.array_equal(first[name], second[name]) for name in first)


def joined(nodes: list[onnx.NodeProto], outputs: list[str]) -> onnx.ModelProto:
    before = model(nodes, outputs)
    after = join_codes(model(nodes, outputs))
    assert same_answer(before, after)
    return after


def test_a_round_trip_at_a_border_goes() -> None:
    nodes = [*pair("a", "x"), *pair("b", "a"), relu("b", "y")]
    assert names(joined(nodes, ["y"])) == ["a/q", "b/dq", "y"]


def test_scales_of_other_names_are_compared_by_value() -> None:
    nodes = [*pair("a", "x"), *pair("b", "a", "same"), relu("b", "y")]
    assert names(joined(nodes, ["y"])) == ["a/q", "b/dq", "y"]


def test_a_chain_of_round_trips_goes() -> None:
    nodes = [*pair("a", "x"), *pair("b", "a"), *pair("c", "b"), relu("c", "y")]
    assert names(joined(nodes, ["y"])) == ["a/q", "c/dq", "y"]


def test_another_scale_stays() -> None:
    nodes = [*pair("a", "x"), *pair("b", "a", "other"), relu("b", "y")]
    assert names(joined(nodes, ["y"])) == ["a/q", "a/dq", "b/q", "b/dq", "y"]


def test_an_output_keeps_what_writes_it() -> None:
    nodes = [*pair("a", "x"), *pair("b", "a"), relu("b", "y")]
    assert names(joined(nodes, ["a", "y"])) == ["a/q", "a/dq", "b/dq", "y"]


def test_two_readers_share_one_quantization() -> None:
    nodes = [*pair("a", "x"), *pair("b", "x"), relu("a", "y"), relu("b", "z2")]
    assert names(joined(nodes, ["y", "z2"])) == ["a/q", "a/dq", "b/dq", "y", "z2"]


@pytest.mark.parametrize("outputs", [["y"]])
def test_a_graph_without_codes_is_untouched(outputs) -> None:
    made = model([relu("x", "y")], outputs)
    before = made.SerializeToString(deterministic=True)
    assert join_codes(made).SerializeToString(deterministic=True) == before
