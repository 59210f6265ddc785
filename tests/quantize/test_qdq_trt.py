"""Every rule of where TensorRT wants its pairs, on every kind of network."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
import pytest

from parnet_deploy.builder.onnx_merge import merge_segment
from parnet_deploy.placement import one, streams
from parnet_deploy.quantize.chain import ChainOptions, PartChain
from parnet_deploy.quantize.metrics import sqnr_db
from parnet_deploy.quantize.qdq_trt import CONVOLUTIONS, quantize_for_tensorrt
from parnet_deploy.spec import IMAGE
from tests.networks import SPECS
from tests.quantize.networks import by_output, constants, exported

PAIR = ("QuantizeLinear", "DequantizeLinear")


def merged(name: str) -> onnx.ModelProto:
    """The whole network in one graph, as one engine is built from it."""
    made = exported(name)
    parts = {k: quantize_for_tensorrt(m, made.ranges) for k, m in made.graphs.items()}
    return merge_segment(one(made.spec).segments[0], made.spec, parts)


def place(node: onnx.NodeProto) -> str:
    return node.name.rpartition("/")[2]


def is_main(node: onnx.NodeProto) -> bool:
    """A 3x3 convolution that is not the first one."""
    return node.op_type == "Conv" and place(node) in CONVOLUTIONS and IMAGE not in node.input


def readers(model: onnx.ModelProto, tensor: str) -> list[onnx.NodeProto]:
    return [node for node in model.graph.node if tensor in node.input]


@pytest.fixture(params=SPECS)
def model(request) -> onnx.ModelProto:
    return merged(request.param)


def of_kind(model: onnx.ModelProto, *kinds: str) -> Iterator[onnx.NodeProto]:
    return (node for node in model.graph.node if node.op_type in kinds)


def test_every_convolution_but_the_first_reads_8_bit_input_and_weight(model) -> None:
    source = by_output(model)
    convolutions = [node for node in model.graph.node if is_main(node)]
    assert len(convolutions) > 4
    for node in convolutions:
        assert source[node.input[0]].op_type == "DequantizeLinear"
        assert source[source[node.input[0]].input[0]].op_type == "QuantizeLinear"
        weight = source[node.input[1]]
        assert weight.op_type == "DequantizeLinear"
        assert constants(model)[weight.input[0]].dtype == np.int8


def test_weights_are_by_output_channel_and_symmetric(model) -> None:
    values = constants(model)
    source = by_output(model)
    for node in model.graph.node:
        if is_main(node):
            back = source[node.input[1]]
            axis = [a.i for a in back.attribute if a.name == "axis"]
            assert axis == [0]
            assert values[back.input[1]].shape == (len(values[back.input[0]]),)
            assert not values[back.input[2]].any()
            assert values[back.input[0]].min() >= -127


def test_activations_are_signed_with_one_scale_and_zero_point_0(model) -> None:
    values = constants(model)
    for node in of_kind(model, "QuantizeLinear"):
        assert values[node.input[1]].shape == ()
        assert values[node.input[2]].dtype == np.int8
        assert values[node.input[2]] == 0


def test_biases_stay_in_floating_point(model) -> None:
    for node in of_kind(model, "Conv", "Gemm"):
        for name in node.input[2:]:
            assert constants(model)[name].dtype == np.float32


def test_no_pair_on_the_output_of_a_convolution_that_fuses(model) -> None:
    """Only the second convolution of a fusion block has one: the side of its addition."""
    for node in of_kind(model, "Conv"):
        after = readers(model, node.output[0])
        if any(reader.op_type == "QuantizeLinear" for reader in after):
            assert place(node) == "conv_b"


def test_exactly_one_side_of_an_addition_after_a_convolution_has_a_pair(model) -> None:
    source = by_output(model)
    sums = [
        node
        for node in of_kind(model, "Add")
        if any(name in source and is_main(source[name]) for name in node.input)
    ]
    for node in sums:
        kinds = [source[name].op_type for name in node.input]
        assert sorted(kinds) == ["Conv", "DequantizeLinear"], node.name
    assert {place(node) for node in sums} <= {"sum"}
    expected = [node for node in model.graph.node if place(node) == "sum"]
    assert len(sums) == len(expected)


def test_nothing_between_convolution_sigmoid_and_product(model) -> None:
    source = by_output(model)
    for node in of_kind(model, "Sigmoid"):
        assert source[node.input[0]].op_type not in PAIR
        assert all(reader.op_type == "Mul" for reader in readers(model, node.output[0]))
    for node in model.graph.node:
        if place(node) in ("silu", "gated", "gated_side", "silu_sigmoid", "bias"):
            inner = [name for name in node.input if name in source and source[name].op_type in PAIR]
            assert inner == [], node.name


def test_the_gate_stays_in_floating_point(model) -> None:
    source = by_output(model)
    gates = [node for node in of_kind(model, "Conv") if place(node).startswith("gate")]
    assert gates
    for node in gates:
        assert source[node.input[0]].op_type == "GlobalAveragePool"
        assert node.input[1] in constants(model)
        assert constants(model)[node.input[1]].dtype == np.float32
        assert all(reader.op_type not in PAIR for reader in readers(model, node.output[0]))
    for node in of_kind(model, "GlobalAveragePool"):
        assert all(reader.op_type not in PAIR for reader in readers(model, node.output[0]))


def test_the_first_convolution_and_the_classifier_stay_in_floating_point(model) -> None:
    values = constants(model)
    for node in readers(model, IMAGE):
        assert node.op_type not in PAIR
        if node.op_type == "Conv":
            assert values[node.input[1]].dtype == np.float32
    for node in of_kind(model, "Gemm"):
        assert values[node.input[1]].dtype == np.float32


def test_a_tensor_has_one_pair_for_all_its_readers(model) -> None:
    quantized = [node.input[0] for node in of_kind(model, "QuantizeLinear")]
    assert len(quantized) == len(set(quantized))
    source = by_output(model)
    assert not [name for name in quantized if name in source and source[name].op_type in PAIR]
    for tensor in quantized:
        kinds = [node.op_type for node in readers(model, tensor)]
        assert [kind for kind in kinds if kind != "Identity"] == ["QuantizeLinear"]


@pytest.mark.parametrize("name", SPECS)
def test_tensors_between_engines_stay_in_floating_point(name) -> None:
    made = exported(name)
    parts = {k: quantize_for_tensorrt(m, made.ranges) for k, m in made.graphs.items()}
    for segment in streams(made.spec).segments:
        graph = merge_segment(segment, made.spec, parts).graph
        for value in (*graph.input, *graph.output):
            assert value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
        written = by_output(merge_segment(segment, made.spec, parts))
        assert all(written[value.name].op_type not in PAIR for value in graph.output)


@pytest.mark.parametrize("name", SPECS)
def test_the_graph_as_it_is_written_is_close_to_float32(name) -> None:
    made = exported(name)
    parts = {k: quantize_for_tensorrt(m, made.ranges) for k, m in made.graphs.items()}
    got = PartChain(made.spec, parts, ChainOptions(emulate=True)).logits(made.images)
    reference = made.full.logits(made.images)
    assert 20 < sqnr_db(got, reference) < 100


def test_a_kept_layer_has_no_pair_of_its_own() -> None:
    made = exported("three")
    model = quantize_for_tensorrt(made.graphs["stream1"], made.ranges, keep=["streams.1.0"])
    node = next(n for n in model.graph.node if n.name == "streams.1.0/conv")
    assert node.input[0] == "x1"
    assert constants(model)[node.input[1]].dtype == np.float32
    assert not [n for n in model.graph.node if n.name.startswith("streams.1.0/gated_side/")]
