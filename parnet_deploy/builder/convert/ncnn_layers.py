"""The nodes of an ONNX graph as ncnn layers, one function per operator.

ncnn has no batch: a tensor (N, C, H, W) is a *map* here, and what is pooled, (N, C, 1, 1) or
(N, C), a *vector*. In a sum or product with a map, a vector counts per channel.

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
from ...runtime.ncnn_file import NcnnLayer
from .ncnn_split import Written

Array = NDArray[np.float32]

_RAW = b"\0\0\0\0"
"""Before weights: they are plain float32."""


def layers_of(model: onnx.ModelProto) -> list[Written]:
    """Every node as layers.

    Raises:
        EngineBuildError: An operator, attribute or shape is one that is not written.
    """
    walk = _Walk(model)
    for node in model.graph.node:
        walk.write(node)
    return walk.layers


class _Walk:
    """What is known on the way through the nodes."""

    def __init__(self, model: onnx.ModelProto) -> None:
        graph = model.graph
        self.layers: list[Written] = []
        self.values = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
        self.vectors: set[str] = set()
        self.shapes: dict[str, str] = {}  # a computed shape -> the map that has it
        self.swishes = _find_swishes(graph)
        for value in graph.input:
            self.input(value)

    def input(self, value: onnx.ValueInfoProto) -> None:
        """An Input layer bears the shape: it is checked when the engine is loaded."""
        dims = value.type.tensor_type.shape.dim
        if len(dims) != 4:
            raise EngineBuildError(
                f"input {value.name}: got {len(dims)} axes, expected N, C, H, W."
            )
        channels, height, width = (dim.dim_value for dim in dims[1:])
        self.add("Input", (), value.name, {0: width, 1: height, 2: channels})

    def write(self, node: onnx.NodeProto) -> None:
        """Append the layers of a node."""
        operator = OPERATORS.get(node.op_type)
        if operator is None:
            raise EngineBuildError(
                f"node {node.name}: got operator {node.op_type}, expected one that the ncnn writer "
                f"knows: {', '.join(OPERATORS)}. Use another backend."
            )
        found = {item.name: helper.get_attribute_value(item) for item in node.attribute}
        operator(self, node, Attributes(node, found))

    def add(
        self,
        kind: str,
        inputs: tuple[str, ...],
        output: str,
        params: dict[int, Any] | None = None,
        weights: bytes = b"",
    ) -> None:
        """Append a layer; its name is that of what it writes."""
        for name in (*inputs, output):
            if not name or name.split() != [name] or not name.isascii() or len(name) > 200:
                raise EngineBuildError(f"tensor {name!r}: expected an ASCII name without blanks.")
        texts = {key: str(value) for key, value in (params or {}).items()}
        layer = NcnnLayer(kind=kind, name=output, inputs=inputs, outputs=(output,), params=texts)
        self.layers.append(Written(layer=layer, weights=weights))

    def constant(self, name: str, node: onnx.NodeProto) -> NDArray[Any]:
        """An input that must be constant."""
        if name not in self.values:
            raise EngineBuildError(f"node {node.name}: got a computed {name}, expected a constant.")
        return self.values[name]

    def operand(self, name: str) -> str:
        """A tensor for a layer to read: a constant becomes a MemoryData layer, once."""
        if name in self.values and not any(w.layer.name == name for w in self.layers):
            value = self.values[name].astype(np.float32)
            shape = value.shape[1:] if value.ndim == 4 and value.shape[0] == 1 else value.shape
            if len(shape) != 3:
                raise EngineBuildError(
                    f"constant {name}: got shape {value.shape}, expected C, H, W."
                )
            channels, height, width = shape
            if height == width == 1:
                self.vectors.add(name)
                params = {0: channels}
            else:
                params = {0: width, 1: height, 2: channels}
            self.add("MemoryData", (), name, params, floats(value))
        return name


class Attributes:
    """Attributes of a node; what a function has not asked for must not be there."""

    def __init__(self, node: onnx.NodeProto, found: dict[str, Any]) -> None:
        self._node, self._found = node, found

    def take(self, name: str, default: Any) -> Any:
        """One attribute."""
        return self._found.pop(name, default)

    def expect(self, name: str, *, default: Any, only: Any) -> None:
        """One attribute that may have one value only."""
        value = self.take(name, default)
        if value != only:
            raise EngineBuildError(
                f"node {self._node.name}, attribute {name}: got {value}, expected {only}."
            )

    def done(self) -> None:
        """Refuse what is left."""
        if self._found:
            raise EngineBuildError(
                f"node {self._node.name}: got attribute {', '.join(self._found)}, "
                f"which the ncnn writer does not know for {self._node.op_type}."
            )


def floats(*values: NDArray[Any]) -> bytes:
    """Little-endian float32, one array after the other."""
    return b"".join(value.astype("<f4").tobytes() for value in values)


def _find_swishes(graph: onnx.GraphProto) -> dict[str, str]:
    """X * sigmoid(x): the output of the product -> x."""
    sigmoids = {n.output[0]: n.input[0] for n in graph.node if n.op_type == "Sigmoid"}
    found = {}
    for node in graph.node:
        if node.op_type == "Mul":
            a, b = node.input
            if sigmoids.get(b) == a or sigmoids.get(a) == b:
                found[node.output[0]] = a if sigmoids.get(b) == a else b
    return found


def _conv(walk: _Walk, node: onnx.NodeProto, attributes: Attributes) -> None:
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
    walk: _Walk, source: str, output: str, matrix: NDArray[Any], bias: list[NDArray[Any]]
) -> None:
    params = {0: len(matrix), 1: len(bias), 2: matrix.size}
    walk.add("InnerProduct", (source,), output, params, _RAW + floats(matrix, *bias))
    walk.vectors.add(output)


def _gemm(walk: _Walk, node: onnx.NodeProto, attributes: Attributes) -> None:
    transposed = attributes.take("transB", 0)
    for name, only in (("alpha", 1.0), ("beta", 1.0), ("transA", 0)):
        attributes.expect(name, default=only, only=only)
    attributes.done()
    weight = walk.constant(node.input[1], node)
    bias = [walk.constant(name, node) for name in node.input[2:]]
    if node.input[0] not in walk.vectors or any(b.shape != (b.size,) for b in bias):
        raise EngineBuildError(f"node {node.name}: expected a vector times a matrix, plus a bias.")
    _product(walk, node.input[0], node.output[0], weight if transposed else weight.T, bias)


def _global_pool(walk: _Walk, node: onnx.NodeProto, attributes: Attributes) -> None:
    attributes.done()
    walk.add("Pooling", (node.input[0],), node.output[0], {0: 1, 4: 1})
    walk.vectors.add(node.output[0])


def _average_pool(walk: _Walk, node: onnx.NodeProto, attributes: Attributes) -> None:
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
    def write(walk: _Walk, node: onnx.NodeProto, attributes: Attributes) -> None:
        attributes.done()
        walk.add(kind, (node.input[0],), node.output[0])
        if node.input[0] in walk.vectors:
            walk.vectors.add(node.output[0])

    return write


def _binary(code: int) -> Operator:
    def write(walk: _Walk, node: onnx.NodeProto, attributes: Attributes) -> None:
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


def _pairwise(walk: _Walk, code: int, a: str, b: str, output: str) -> None:
    a, b = walk.operand(a), walk.operand(b)
    if a in walk.vectors and b not in walk.vectors:
        a, b = b, a  # ncnn spreads the second over the first
    walk.add("BinaryOp", (a, b), output, {0: code})
    if a in walk.vectors:
        walk.vectors.add(output)


def _sum(walk: _Walk, node: onnx.NodeProto, attributes: Attributes) -> None:
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


def _flatten(walk: _Walk, node: onnx.NodeProto, attributes: Attributes) -> None:
    attributes.expect("axis", default=1, only=1)
    attributes.done()
    walk.add("Flatten", (node.input[0],), node.output[0])
    walk.vectors.add(node.output[0])


def _identity(walk: _Walk, node: onnx.NodeProto, attributes: Attributes) -> None:
    _unary("Split")(walk, node, attributes)


def _gather(walk: _Walk, node: onnx.NodeProto, attributes: Attributes) -> None:
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


def _concat(walk: _Walk, node: onnx.NodeProto, attributes: Attributes) -> None:
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


def _shape(walk: _Walk, node: onnx.NodeProto, attributes: Attributes) -> None:
    attributes.expect("start", default=0, only=2)
    attributes.done()
    walk.shapes[node.output[0]] = node.input[0]


def _ones(walk: _Walk, node: onnx.NodeProto, attributes: Attributes) -> None:
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


Operator = Callable[[_Walk, onnx.NodeProto, Attributes], None]

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
