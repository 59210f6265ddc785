"""Put QuantizeLinear/DequantizeLinear pairs into a part's graph; where, the targets decide.

Names stay stable: the pair on tensor ``t`` is ``t/quantize`` and ``t/dequantize``; on an input of
the part the part's name stands before it, for two parts may read the same tensor. Everybody who
reads a tensor with a pair reads its 8-bit form, so that it has one meaning.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from .table import TensorRange

MIN_SCALE = 1e-9  # of a tensor that is zero
MAX_BIAS = 2.0**31 - 1
CLASSIFIER = "head"


@dataclass(frozen=True, kw_only=True)
class Code:
    """How a tensor becomes 8 bits: value = (code - zero_point) * scale."""

    scale: float
    zero_point: int
    signed: bool

    @property
    def dtype(self) -> type[np.int8] | type[np.uint8]:
        """Type of the codes."""
        return np.int8 if self.signed else np.uint8

    def encode(self, values: NDArray[np.float32]) -> NDArray[Any]:
        """Codes of a constant."""
        info = np.iinfo(self.dtype)
        codes = np.round(values.astype(np.float64) / self.scale) + self.zero_point
        return np.clip(codes, info.min, info.max).astype(self.dtype)


def affine(low: float, high: float) -> Code:
    """U8 from ``low`` to ``high``; zero is a code of its own, for padding is zero."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = max((high - low) / 255, MIN_SCALE)
    return Code(scale=scale, zero_point=int(np.clip(round(-low / scale), 0, 255)), signed=False)


def symmetric(found: TensorRange) -> Code:
    """S8 around zero, zero point 0: what TensorRT asks for."""
    return Code(scale=max(found.amax / 127, MIN_SCALE), zero_point=0, signed=True)


def layer_of(node: onnx.NodeProto) -> str:
    """The block that a node belongs to; the classifier is ``head``."""
    return str(node.name).partition("/")[0]


def layers(model: onnx.ModelProto) -> list[str]:
    """Blocks of a part in order, and the classifier, those that have weights."""
    weighted = (node for node in model.graph.node if node.op_type in ("Conv", "Gemm"))
    return list(dict.fromkeys(layer_of(node) for node in weighted))


def readers(model: onnx.ModelProto, tensor: str) -> Iterator[onnx.NodeProto]:
    """Nodes that read a tensor."""
    return (node for node in model.graph.node if tensor in node.input)


class QdqWriter:
    """Collects where the pairs go, then writes the graph once."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._model = model
        self.constants = {
            item.name: numpy_helper.to_array(item) for item in model.graph.initializer
        }
        self._codes: dict[str, Code] = {}
        self._weights: dict[str, tuple[NDArray[Any], NDArray[np.float32], NDArray[Any]]] = {}
        self._tables: dict[str, NDArray[Any]] = {}

    def quantize(self, tensor: str, code: Code) -> None:
        """Ask for a pair on an activation."""
        self._codes[tensor] = code

    def code(self, tensor: str) -> Code | None:
        """The code of an activation, if it has a pair."""
        return self._codes.get(tensor)

    def quantize_channels(self, name: str, limit: int, floor: NDArray[np.float64] | None) -> None:
        """Make a weight S8 with a scale for each output channel; codes go to +-``limit``.

        ``floor`` is the least scale of each channel.
        """
        value = self.constants[name].astype(np.float64)
        rows = np.abs(value.reshape(len(value), -1)).max(1)  # (O,)
        scale = np.maximum(rows / limit, MIN_SCALE)
        scale = np.float32(scale if floor is None else np.maximum(scale, floor))
        codes = np.round(value / scale.reshape(-1, *[1] * (value.ndim - 1)))
        zero = np.zeros(len(scale), np.int8)
        self._weights[name] = (np.clip(codes, -limit, limit).astype(np.int8), scale, zero)

    def channel_scale(self, name: str) -> NDArray[np.float32]:
        """The scales of a weight that was quantized by channels."""
        return self._weights[name][1]

    def quantize_bias(self, name: str, scale: NDArray[np.float32]) -> None:
        """Make a bias S32 in units of input scale times weight scale."""
        codes = np.round(self.constants[name].astype(np.float64) / scale)
        codes = np.clip(codes, -MAX_BIAS, MAX_BIAS).astype(np.int32)
        self._weights[name] = (codes, scale, np.zeros(len(scale), np.int32))

    def quantize_constant(self, name: str) -> None:
        """Make the constant operand of an elementwise node U8, one scale for all."""
        value = self.constants[name]
        code = affine(float(value.min()), float(value.max()))
        scale = np.array(code.scale, np.float32)
        self._weights[name] = (code.encode(value), scale, np.array(code.zero_point, np.uint8))

    def write(self) -> onnx.ModelProto:
        """The graph with its pairs, checked.

        Raises:
            onnx.checker.ValidationError: The graph is wrong, which would be a bug here.
        """
        model = onnx.ModelProto()
        model.CopyFrom(self._model)
        graph = model.graph
        outputs = {value.name for value in graph.output}
        source = {value.name: f"{graph.name}/{value.name}" for value in graph.input}
        nodes: list[onnx.NodeProto] = []
        for value in graph.input:
            nodes += self._pair(value.name, source[value.name], value.name, "")
        for node in graph.node:
            for i, name in enumerate(node.input):
                if name in self._weights:
                    nodes.append(self._constant(name))
                    node.input[i] = f"{name}/dequantized"
                elif name in self._codes and name not in outputs:
                    node.input[i] = f"{source.get(name, name)}/dequantized"
            nodes.append(node)
            name = node.output[0]
            if name in self._codes:
                raw = f"{name}/raw" if name in outputs else name
                node.output[0] = raw
                nodes += self._pair(name, name, raw, name if name in outputs else "")
        read = {name for node in nodes for name in node.input}
        kept = [item for item in graph.initializer if item.name in read]
        added = [numpy_helper.from_array(np.asarray(v), k) for k, v in self._tables.items()]
        del graph.node[:], graph.initializer[:]
        graph.node.extend(nodes)
        graph.initializer.extend([*kept, *added])
        onnx.checker.check_model(model, full_check=True)
        return model

    def _pair(self, name: str, label: str, raw: str, output: str) -> list[onnx.NodeProto]:
        code = self._codes.get(name)
        if code is None:
            return []
        self._tables[f"{label}/scale"] = np.array(code.scale, np.float32)
        self._tables[f"{label}/zero_point"] = np.array(code.zero_point, code.dtype)
        how = [f"{label}/scale", f"{label}/zero_point"]
        coded, back = f"{label}/quantized", output or f"{label}/dequantized"
        return [
            helper.make_node("QuantizeLinear", [raw, *how], [coded], name=f"{label}/quantize"),
            helper.make_node("DequantizeLinear", [coded, *how], [back], name=f"{label}/dequantize"),
        ]

    def _constant(self, name: str) -> onnx.NodeProto:
        codes, scale, zero = self._weights[name]
        self._tables[f"{name}/quantized"] = codes
        self._tables[f"{name}/scale"] = scale
        self._tables[f"{name}/zero_point"] = zero
        inputs = [f"{name}/{what}" for what in ("quantized", "scale", "zero_point")]
        node = helper.make_node(
            "DequantizeLinear", inputs, [f"{name}/dequantized"], name=f"{name}/dequantize"
        )
        if scale.ndim:
            node.attribute.append(helper.make_attribute("axis", 0))
        return node
