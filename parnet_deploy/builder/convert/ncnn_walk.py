"""What the ncnn writer knows on its way through a graph: the layers so far, and kinds of tensors.

ncnn has no batch: a tensor (N, C, H, W) is a *map* here, and what is pooled, (N, C, 1, 1) or
(N, C), a *vector*. In a sum or product with a map, a vector counts per channel.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from ...errors import EngineBuildError
from ...runtime.ncnn_file import NcnnLayer
from .ncnn_split import Written


class Walk:
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
    """Products x * sigmoid(x): their output -> x."""
    sigmoids = {n.output[0]: n.input[0] for n in graph.node if n.op_type == "Sigmoid"}
    found = {}
    for node in graph.node:
        if node.op_type == "Mul":
            a, b = node.input
            if sigmoids.get(b) == a or sigmoids.get(a) == b:
                found[node.output[0]] = a if sigmoids.get(b) == a else b
    return found
