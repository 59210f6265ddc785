"""The ncnn writer: every operator and small networks against ONNX Runtime, and its refusals."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

pytest.importorskip("ncnn")

from parnet_deploy.builder.convert import to_ncnn
from parnet_deploy.builder.convert.ncnn_layers import OPERATORS, dense
from parnet_deploy.builder.onnx_merge import merge_segment
from parnet_deploy.errors import EngineBuildError
from parnet_deploy.export.fuse import fuse_network
from parnet_deploy.export.to_onnx import part_to_onnx
from parnet_deploy.input_size import InputSize
from parnet_deploy.placement import one, streams
from parnet_deploy.runtime.ncnn_file import unpack_model
from parnet_deploy.spec import ModelSpec
from tests.builder.convert.ncnn_toys import (
    check_against_onnxruntime,
    engine_bytes,
    graph_of,
    run_engine,
)
from tests.networks import random_state

NODE = helper.make_node


def normal(*shape: int, seed: int = 0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def pooled(x: str = "x", to: str = "p"):
    return NODE("GlobalAveragePool", [x], [to])


def conv(x: str, w: str, to: str, **attributes):
    return NODE("Conv", [x, *w.split()], [to], **attributes)


SAME = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
ORDER = np.arange(6).reshape(2, -1).T.flatten()
ONES_SHAPE = [
    NODE("Shape", ["x"], ["hw"], start=2),
    NODE("Concat", ["lead", "hw"], ["full"], axis=0),
    NODE(
        "ConstantOfShape",
        ["full"],
        ["ones"],
        value=numpy_helper.from_array(np.ones(1, np.float32)),
    ),
]

# what is tried: nodes from x (6 channels) to y (rank 4 unless said), and their constants
CASES = {
    "conv 3x3": ([conv("x", "w b", "y", **SAME)], {"w": normal(5, 6, 3, 3), "b": normal(5)}),
    "conv of stride 2": ([conv("x", "w", "y", strides=[2, 2], **SAME)], {"w": normal(8, 6, 3, 3)}),
    "conv, uneven": (
        [conv("x", "w", "y", strides=[1, 2], pads=[0, 1, 2, 0])],
        {"w": normal(4, 6, 2, 3)},
    ),
    "conv 1x1": ([conv("x", "w b", "y")], {"w": normal(7, 6, 1, 1), "b": normal(7)}),
    "conv of groups": ([conv("x", "w b", "y", group=2)], {"w": normal(4, 3, 1, 1), "b": normal(4)}),
    "conv 3x3 of groups": ([conv("x", "w", "y", group=3, **SAME)], {"w": normal(9, 2, 3, 3)}),
    "depthwise conv": ([conv("x", "w", "y", group=6, **SAME)], {"w": normal(6, 1, 3, 3)}),
    "gate": (
        [pooled(), conv("p", "w b", "g"), NODE("Sigmoid", ["g"], ["s"]), NODE("Mul", "xs", "y")],
        {"w": normal(6, 6, 1, 1), "b": normal(6)},
    ),
    "gate first": ([pooled(), NODE("Sigmoid", ["p"], ["s"]), NODE("Mul", "sx", "y")], {}),
    "gate of groups": (
        [pooled(), conv("p", "w", "g", group=2), NODE("Mul", "xg", "y")],
        {"w": normal(6, 3, 1, 1)},
    ),
    "vector as output": ([pooled(to="y")], {}),
    "relu of a vector": ([pooled(), NODE("Relu", "p", "y")], {}),
    "silu of a vector": (
        [pooled(), NODE("Sigmoid", "p", "s"), NODE("Mul", "sp", "y")],
        {},
    ),
    "vectors": (
        [pooled(), NODE("Add", "pc", "a"), NODE("Mul", "pa", "b"), NODE("Mul", "bx", "y")],
        {"c": normal(6, 1, 1)},
    ),
    "relu": ([NODE("Relu", "x", "y")], {}),
    "sigmoid": ([NODE("Sigmoid", "x", "y")], {}),
    "silu": ([NODE("Sigmoid", "x", "s"), NODE("Mul", "xs", "y")], {}),
    "silu, other order": ([NODE("Sigmoid", "x", "s"), NODE("Mul", "sx", "y")], {}),
    "tanh": ([NODE("Tanh", "x", "y")], {}),
    "square": ([NODE("Mul", "xx", "y")], {}),
    "scale": ([NODE("Mul", "xc", "y")], {"c": normal(6, 1, 1)}),
    "shift": ([NODE("Add", "cx", "y")], {"c": normal(1, 6, 1, 1)}),
    "constant read twice": (
        [NODE("Mul", "xc", "a"), NODE("Add", "ac", "y")],
        {"c": normal(6, 1, 1)},
    ),
    "sum": ([NODE("Tanh", "x", "t"), NODE("Sum", "xtx", "y")], {}),
    "sum of one": ([NODE("Sum", "x", "y")], {}),
    "identity": ([NODE("Identity", "x", "y")], {}),
    "shuffle": ([NODE("Gather", ["x", "i"], ["y"], axis=1)], {"i": ORDER}),
    "concat": ([NODE("Relu", "x", "r"), NODE("Concat", "xr", "y", axis=1)], {}),
    "average pool": (
        [NODE("AveragePool", "x", "y", kernel_shape=[2, 3], strides=[2, 1])],
        {},
    ),
    "ones": ([*ONES_SHAPE, NODE("Add", ["x", "ones"], "y")], {"lead": np.array([1, 1])}),
    "border": (
        [*ONES_SHAPE, conv("ones", "w b", "m", **SAME), NODE("Add", "mx", "y")],
        {"lead": np.array([1, 1]), "w": normal(6, 1, 3, 3), "b": normal(6)},
    ),
    "flatten": ([NODE("Flatten", "x", "y", axis=1)], {}),
    "gemm": (
        [pooled(), NODE("Flatten", "p", "f", axis=1), NODE("Gemm", "fwb", "y", transB=1)],
        {"w": normal(3, 6), "b": normal(3)},
    ),
    "gemm, not transposed": (
        [pooled(), NODE("Flatten", "p", "f", axis=1), NODE("Gemm", "fw", "y")],
        {"w": normal(6, 3)},
    ),
}
RANK_2 = ("flatten", "gemm", "gemm, not transposed")


@pytest.mark.parametrize("size", [(4, 4), (6, 6), (5, 7), (8, 16)], ids=str)
@pytest.mark.parametrize("case", CASES)
def test_an_operator_on_its_own(case, size) -> None:
    nodes, constants = CASES[case]
    model = graph_of(nodes, {"x": [6, "h", "w"]}, {"y": 2 if case in RANK_2 else 4}, constants)
    check_against_onnxruntime(model, {"x": normal(2, 6, *size)})


def test_every_operator_was_tried() -> None:
    tried = {node.op_type for nodes, _ in CASES.values() for node in nodes}
    assert tried == set(OPERATORS)


def test_a_constant_map_and_several_outputs_that_are_read_on() -> None:
    nodes = [NODE("Add", "xm", "a"), NODE("Tanh", "a", "b"), NODE("Mul", "ab", "c")]
    model = graph_of(nodes, {"x": [5, 3, 4]}, {"a": 4, "b": 4, "c": 4}, {"m": normal(1, 5, 3, 4)})
    check_against_onnxruntime(model, {"x": normal(3, 5, 3, 4)})


def test_ones_are_ones_whatever_the_map_has() -> None:
    model = graph_of(
        [*ONES_SHAPE, conv("ones", "w", "y")],
        {"x": [4, "h", "w"]},
        {"y": 4},
        {"lead": np.array([1, 1]), "w": np.ones((1, 1, 1, 1), np.float32)},
    )
    x = normal(1, 4, 3, 3)
    x[0, 0] = [[np.nan, np.inf, -np.inf]] * 3
    found = run_engine(engine_bytes(model), {"x": x}, {"y": (1, 1, 3, 3)})
    np.testing.assert_array_equal(found["y"], np.ones((1, 1, 3, 3)))


def test_what_nobody_reads_is_left_out() -> None:
    nodes = [NODE("Sigmoid", "x", "s"), NODE("Mul", "xs", "y"), conv("x", "w", "z")]
    model = graph_of(nodes, {"x": [4, 3, 3]}, {"y": 4}, {"w": normal(4, 4, 1, 1)})
    made = unpack_model(engine_bytes(model), "toy")
    assert [layer.kind for layer in made.layers] == ["Input", "Swish"]
    assert made.weights == b""


def test_a_grouped_matrix_in_full() -> None:
    blocks = np.arange(1, 5).reshape(4, 1)
    np.testing.assert_array_equal(dense(blocks, 2), [[1, 0], [2, 0], [0, 3], [0, 4]])


@st.composite
def networks(draw):
    """A fused network of 2 to 4 streams, a size and a batch."""
    count = draw(st.integers(2, 4))
    widths = [draw(st.integers(1, 5)) for _ in range(count + 1)]
    even = {*range(2, count), count - 1}  # what a convolution of two groups writes
    planes = tuple(width * (2 if i in even else 1) for i, width in enumerate(widths))
    spec = ModelSpec(
        planes=planes,
        num_blocks=(*(draw(st.integers(1, 2)) for _ in range(count)), 1),
        num_classes=draw(st.integers(1, 5)),
        activation=draw(st.sampled_from(["silu", "relu"])),
    )
    times = draw(st.integers(1, 2))
    return spec, times, draw(st.integers(1, 3)), draw(st.booleans()), draw(st.integers(0, 99))


@settings(max_examples=12, deadline=None)
@given(networks())
def test_random_networks(drawn) -> None:
    spec, times, batch, fixed, seed = drawn
    side = spec.size_multiple
    high = (side * times, side * (times if fixed else times + 1))
    size = InputSize(low=high if fixed else (side, side), high=high)
    fused = fuse_network(random_state(spec, seed), spec)
    parts = {part.name: part_to_onnx(fused, part, size) for part in spec.parts}
    model = merge_segment(one(spec).segments[0], spec, parts)
    check_against_onnxruntime(model, {"image": normal(batch, 3, *high, seed=seed)})


@pytest.mark.parametrize("count", [2, 3, 4])
def test_each_segment_of_a_network(count) -> None:
    spec = ModelSpec(
        planes=(5, *(4, 6, 2, 8)[:count]), num_blocks=(2,) * count + (1,), num_classes=3
    )
    side = spec.size_multiple
    size = InputSize(low=(side, side), high=(side, side))
    fused = fuse_network(random_state(spec), spec)
    parts = {part.name: part_to_onnx(fused, part, size) for part in spec.parts}
    for segment in streams(spec).segments:
        model = merge_segment(segment, spec, parts)
        feeds = {name: normal(2, *spec.tensors[name].shape(side, side)) for name in segment.inputs}
        check_against_onnxruntime(model, feeds)


class TestRefused:
    """What the writer does not know is named, never guessed."""

    def refuse(self, nodes, match, constants=None, **more) -> None:
        model = graph_of(nodes, {"x": [4, 4, 4]}, {"y": 4}, constants, **more)
        with pytest.raises(EngineBuildError, match=match):
            engine_bytes(model)

    def test_an_operator(self) -> None:
        self.refuse([NODE("MaxPool", "x", "y", kernel_shape=[2, 2])], "got operator MaxPool, exp")

    @pytest.mark.parametrize(
        ("attributes", "match"),
        [
            ({"dilations": [2, 2]}, r"attribute dilations: got \[2, 2\]"),
            ({"auto_pad": "SAME_UPPER"}, "attribute auto_pad"),
        ],
    )
    def test_an_attribute(self, attributes, match) -> None:
        self.refuse([conv("x", "w", "y", **attributes)], match, {"w": normal(4, 4, 3, 3)})

    def test_an_attribute_that_it_has_not_heard_of(self) -> None:
        nodes = [NODE("AveragePool", "x", "y", kernel_shape=[2, 2], dilations=[1, 2])]
        self.refuse(nodes, "got attribute dilations", opset=19)

    def test_a_gather_that_is_no_shuffle(self) -> None:
        order = np.array([3, 0, 1, 2])
        self.refuse([NODE("Gather", ["x", "i"], "y", axis=1)], "shuffle of channels", {"i": order})

    def test_a_shuffle_of_rows(self) -> None:
        order = np.array([0, 2, 1, 3])
        self.refuse([NODE("Gather", ["x", "i"], "y", axis=2)], "attribute axis", {"i": order})

    def test_a_concat_of_rows(self) -> None:
        self.refuse([NODE("Concat", "xx", "y", axis=2)], "attribute axis")

    def test_a_scalar(self) -> None:
        self.refuse([NODE("Mul", "xc", "y")], r"got shape \(\)", {"c": np.float32(2)})

    def test_a_row(self) -> None:
        self.refuse([NODE("Mul", "xc", "y")], r"got shape \(4,\)", {"c": normal(4)})

    def test_computed_weights(self) -> None:
        nodes = [NODE("Relu", "v", "w"), conv("x", "w", "y")]
        self.refuse(nodes, "got a computed w|constant v", {"v": normal(4, 4, 1, 1)})

    def test_other_ones(self) -> None:
        two = numpy_helper.from_array(np.full(1, 2, np.float32))
        nodes = [*ONES_SHAPE[:2], NODE("ConstantOfShape", ["full"], ["o"], value=two)]
        nodes.append(NODE("Add", "xo", "y"))
        self.refuse(nodes, "attribute value: expected 1", {"lead": np.array([1, 1])})

    def test_an_output_that_is_an_input(self) -> None:
        model = graph_of([NODE("Relu", "x", "y")], {"x": [4, 4, 4]}, {"y": 4, "x": 4})
        with pytest.raises(EngineBuildError, match="tensor x: is input and output"):
            engine_bytes(model)

    def test_an_input_that_is_no_map(self) -> None:
        model = graph_of([NODE("Relu", "x", "y")], {"x": [4]}, {"y": 2})
        with pytest.raises(EngineBuildError, match="input x: got 2 axes"):
            engine_bytes(model)

    @pytest.mark.parametrize("precision", ["bf16", "int8"])
    def test_a_precision(self, precision, tmp_path) -> None:
        with pytest.raises(EngineBuildError, match=f"got {precision}, expected fp32"):
            to_ncnn.convert(tmp_path / "graph", tmp_path / "made", precision=precision)


def test_the_same_graph_gives_the_same_bytes() -> None:
    model = graph_of([conv("x", "w", "y")], {"x": [4, 3, 3]}, {"y": 4}, {"w": normal(4, 4, 1, 1)})
    assert engine_bytes(model) == engine_bytes(
        onnx.ModelProto.FromString(model.SerializeToString())
    )
