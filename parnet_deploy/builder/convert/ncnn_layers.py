"""The nodes of an ONNX graph as ncnn layers, one function per operator.

Source: docs/developer-guide/operators.md and binaryop-broadcasting.md of ncnn.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from ...errors import EngineBuildError
from .ncnn_split import Written
from .ncnn_walk import Attributes, Walk, floats

_RAW = b"\0\0\0\0"
"""Before weights: they are plain float32."""


def layers_of(model: onnx.ModelProto) -> list[Written]:
    """Every node as layers.

    Raises:
        EngineBuildError: An operator, attribute or shape is one that is not written.
    """
    walk = Walk(model)
    for node in model.graph.node:
        operator = OPERATORS.get(node.op_type)
        if operator is None:
            raise EngineBuildError(
                f"node {node.name}: got operator {node.op_type}, expected one that the ncnn writer "
                f"knows: {', '.join(OPERATORS)}. Use another backend."
            )
        found = {item.name: helper.get_attribute_value(item) for item in node.attribute}
        operator(walk, node, Attributes(node, found))
    return walk.layers


def _conv(walk: Walk, node: onnx.NodeProto, attributes: Attributes) -> None:
    source, output = node.input[0], node.output[0]
    weight = walk.constant(node.input[1], node)
    bias = [walk.constant(name, node) for name in node.input[2:]]
    kernel = attributes.take("kernel_shape", list(weight.shape[2:]))
    strides, pads = attributes.take("strides", [1, 1]), attributes.take("pads", [0] * 4)
    groups = attributes.take("group", 1)
    attributes.expect("dilations", default=[1, 1], only=[1, 1])
    attributes.expect("auto_pad", default=b"NOTSET", only=b"NOTSET")
    attributes.done()
    if weight.ndim != 4 or list(weight.shape[2:]) != list(kernel):
        raise EngineBuildError(f"node {node.name}: got weights {weight.shape}, kernel {kernel}.")
    if source in walk.vectors:
        if list(kernel) != [1, 1] or any(pads):
            raise EngineBuildError(f"node {node.name}: got kernel {kernel}, pads {pads} on 1x1.")
        return _product(walk, source, output, dense(weight[:, :, 0, 0], groups), bias)
    top, left, bottom, right = pads
    params = {0: len(weight), 1: kernel[1], 11: kernel[0], 3: strides[1], 13: strides[0]}
    params |= {4: left, 15: right, 14: top, 16: bottom, 5: len(bias), 6: weight.size}
    kind = "Convolution"
    if groups > 1:
        kind, params[7] = "ConvolutionDepthWise", groups
    return walk.add(kind, (source,), output, params, _RAW + floats(weight, *bias))


def dense(weight: NDArray[Any], groups: int) -> NDArray[Any]:
    """The full matrix (O, I) of a grouped one, (O, I / groups)."""
    outputs, inputs = weight.shape
    full = np.zeros((groups, outputs // groups, groups, inputs), weight.dtype)
    for group, block in enumerate(weight.reshape(groups, outputs // groups, inputs)):
        full[group, :, group] = block
    return full.reshape(outputs, groups * inputs)


def _product(
    walk: Walk, source: str, output: str, matrix: NDArray[Any], bias: list[NDArray[Any]]
) -> None:
    params = {0: len(matrix), 1: len(bias), 2: matrix.size}
    walk.add("InnerProduct", (source,), output, params, _RAW + floats(matrix, *bias))
    walk.vectors.add(output)


def _gemm(walk: Walk, node: onnx.NodeProto, attributes: Attributes) -> None:
    transposed = attributes.take("transB", 0)
    for name, only in (("alpha", 1.0), ("beta", 1.0), ("transA", 0)):
        attributes.expect(name, default=only, only=only)
    attributes.done()
    weight = walk.constant(node.input[1], node)
    bias = [walk.constant(name, node) for name in node.input[2:]]
    if node.input[0] not in walk.vectors or any(b.shape != (b.size,) for b in bias):
        raise EngineBuildError(f"node {node.name}: expected a vector times a matrix, plus a bias.")
    _product(walk, node.input[0], node.output[0], weight if transposed else weight.T, bias)


def _global_pool(walk: Walk, node: onnx.NodeProto, attributes: Attributes) -> None:
    attributes.done()
    walk.add("Pooling", (node.input[0],), node.output[0], {0: 1, 4: 1})
    walk.vectors.add(node.output[0])


def _average_pool(walk: Walk, node: onnx.NodeProto, attributes: Attributes) -> None:
    height, width = attributes.take("kernel_shape", None)
    strides = attributes.take("strides", [1, 1])
    attributes.expect("pads", default=[0] * 4, only=[0] * 4)
    attributes.expect("ceil_mode", default=0, only=0)
    attributes.expect("auto_pad", default=b"NOTSET", only=b"NOTSET")
    attributes.take("count_include_pad", 0)  # there is no padding
    attributes.done()
    params = {0: 1, 1: width, 11: height, 2: strides[1], 12: strides[0], 5: 1}
    walk.add("Pooling", (node.input[0],), node.output[0], params)


def _unary(kind: str) -> Operator:
    def write(walk: Walk, node: onnx.NodeProto, attributes: Attributes) -> None:
        attributes.done()
        walk.add(kind, (node.input[0],), node.output[0])
        if node.input[0] in walk.vectors:
            walk.vectors.add(node.output[0])

    return write


def _binary(code: int) -> Operator:
    def write(walk: Walk, node: onnx.NodeProto, attributes: Attributes) -> None:
        attributes.done()
        output = node.output[0]
        if code == _MUL and output in walk.swishes:
            source = walk.swishes[output]
            walk.add("Swish", (source,), output)
            if source in walk.vectors:
                walk.vectors.add(output)
        else:
            _pairwise(walk, code, node.input[0], node.input[1], output)

    return write


def _pairwise(walk: Walk, code: int, a: str, b: str, output: str) -> None:
    a, b = walk.operand(a), walk.operand(b)
    if a in walk.vectors and b not in walk.vectors:
        a, b = b, a  # ncnn spreads the second over the first
    walk.add("BinaryOp", (a, b), output, {0: code})
    if a in walk.vectors:
        walk.vectors.add(output)


def _sum(walk: Walk, node: onnx.NodeProto, attributes: Attributes) -> None:
    attributes.done()
    total, *others = node.input
    if not others:
        return walk.add("Split", (total,), node.output[0])
    for i, other in enumerate(others, 1):
        last = i == len(others)
        output = node.output[0] if last else f"{node.output[0]}/sum{i}"
        _pairwise(walk, _ADD, total, other, output)
        total = output
    return None


def _flatten(walk: Walk, node: onnx.NodeProto, attributes: Attributes) -> None:
    attributes.expect("axis", default=1, only=1)
    attributes.done()
    walk.add("Flatten", (node.input[0],), node.output[0])
    walk.vectors.add(node.output[0])


def _identity(walk: Walk, node: onnx.NodeProto, attributes: Attributes) -> None:
    _unary("Split")(walk, node, attributes)


def _gather(walk: Walk, node: onnx.NodeProto, attributes: Attributes) -> None:
    attributes.expect("axis", default=0, only=1)
    attributes.done()
    order = walk.constant(node.input[1], node)
    count = order.size
    for groups in range(1, count + 1):
        if count % groups == 0:
            shuffled = np.arange(count).reshape(groups, -1).T.flatten()
            if np.array_equal(order, shuffled) and node.input[0] not in walk.vectors:
                return walk.add("ShuffleChannel", (node.input[0],), node.output[0], {0: groups})
    raise EngineBuildError(f"node {node.name}: got a Gather, expected a shuffle of channels.")


def _concat(walk: Walk, node: onnx.NodeProto, attributes: Attributes) -> None:
    axis = attributes.take("axis", None)
    attributes.done()
    if node.input[-1] in walk.shapes and axis == 0:
        lead = [walk.constant(name, node).tolist() for name in node.input[:-1]]
        if lead != [[1, 1]]:
            raise EngineBuildError(f"node {node.name}: got the shape {lead} + H, W, expected 1, 1.")
        walk.shapes[node.output[0]] = walk.shapes[node.input[-1]]
        return None
    if axis != 1 or any(name in walk.values for name in node.input):
        raise EngineBuildError(f"node {node.name}, attribute axis: got {axis}, expected 1.")
    vectors = [name in walk.vectors for name in node.input]
    if any(vectors):
        raise EngineBuildError(f"node {node.name}: got pooled tensors, expected maps.")
    return walk.add("Concat", tuple(node.input), node.output[0], {0: 0})


def _shape(walk: Walk, node: onnx.NodeProto, attributes: Attributes) -> None:
    attributes.expect("start", default=0, only=2)
    attributes.done()
    walk.shapes[node.output[0]] = node.input[0]


def _ones(walk: Walk, node: onnx.NodeProto, attributes: Attributes) -> None:
    """A map of ones as large as another: the first channel of that, clipped to [1, 1]."""
    value = attributes.take("value", None)
    attributes.done()
    if value is None or numpy_helper.to_array(value).tolist() != [1.0]:
        raise EngineBuildError(f"node {node.name}, attribute value: expected 1.")
    if node.input[0] not in walk.shapes:
        raise EngineBuildError(f"node {node.name}: expected the shape 1, 1, H, W of a map.")
    output = node.output[0]
    first = f"{output}/first"
    params = {-23309: "1,0", -23310: "1,1", -23311: "1,0"}  # starts, ends, axes
    walk.add("Crop", (walk.shapes[node.input[0]],), first, params)
    walk.add("Clip", (first,), output, {0: 1.0, 1: 1.0})


Operator = Callable[[Walk, onnx.NodeProto, Attributes], None]

_ADD, _MUL = 0, 2

OPERATORS: dict[str, Operator] = {
    "Add": _binary(_ADD),
    "AveragePool": _average_pool,
    "Concat": _concat,
    "ConstantOfShape": _ones,
    "Conv": _conv,
    "Flatten": _flatten,
    "Gather": _gather,
    "Gemm": _gemm,
    "GlobalAveragePool": _global_pool,
    "Identity": _identity,
    "Mul": _binary(_MUL),
    "Relu": _unary("ReLU"),
    "Shape": _shape,
    "Sigmoid": _unary("Sigmoid"),
    "Sum": _sum,
    "Tanh": _unary("TanH"),
}
"""The operators that are written."""
