"""What a segment's graph asks of TensorRT: inputs, and the precision that its types speak of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto

from ...errors import EngineBuildError

_QUANTIZING = ("QuantizeLinear", "DequantizeLinear")
_TYPELESS = ("Cast", "Constant", "ConstantOfShape", "Identity", *_QUANTIZING)
"""Operators that compute nothing whose precision one could ask for."""


@dataclass(frozen=True, kw_only=True)
class GraphFacts:
    """Read off an ONNX graph.

    ``half`` and ``quantized``: it has FLOAT16 tensors, or Q/DQ nodes. ``keep_float`` names the
    nodes of a half graph that compute in float32: where types do not bind (TensorRT 8.6) these
    must be told to. ``inputs`` has None for a free axis.
    """

    inputs: dict[str, tuple[int | None, ...]]
    half: bool
    quantized: bool
    keep_float: tuple[str, ...]

    @property
    def precision(self) -> str:
        """One word: fp32, fp16, int8 or int8+fp16."""
        words = ["int8"] * self.quantized + ["fp16"] * self.half
        return "+".join(words) or "fp32"


def read_graph(data: bytes, where: str) -> GraphFacts:
    """Read the facts off a serialized ONNX model.

    Raises:
        EngineBuildError: The bytes are not an ONNX model whose types can be inferred.
    """
    try:
        model = onnx.load_from_string(data)
        graph = onnx.shape_inference.infer_shapes(model).graph
    except (DecodeError, onnx.shape_inference.InferenceError, ValueError) as error:
        raise EngineBuildError(
            f"graph of {where}: got {error}, expected an ONNX model. Run: parnet-deploy export."
        ) from error
    if not graph.node:
        raise EngineBuildError(
            f"graph of {where}: got no nodes, expected an ONNX model. Run: parnet-deploy export."
        )
    values = (*graph.input, *graph.value_info, *graph.output)
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    types |= {weight.name: weight.data_type for weight in graph.initializer}
    half = TensorProto.FLOAT16 in types.values()
    weights = {weight.name for weight in graph.initializer}
    return GraphFacts(
        inputs={
            value.name: _shape(value.type.tensor_type.shape)
            for value in graph.input
            if value.name not in weights
        },
        half=half,
        quantized=any(node.op_type in _QUANTIZING for node in graph.node),
        keep_float=_float_nodes(graph, types) if half else (),
    )


def _shape(shape: Any) -> tuple[int | None, ...]:
    return tuple(
        dim.dim_value if dim.HasField("dim_value") and dim.dim_value > 0 else None
        for dim in shape.dim
    )


def _float_nodes(graph: onnx.GraphProto, types: dict[str, int]) -> tuple[str, ...]:
    """Those that write float32 and are not meant to run in INT8."""
    quantized = {
        name for node in graph.node if node.op_type == "DequantizeLinear" for name in node.output
    }
    return tuple(
        node.name
        for node in graph.node
        if node.op_type not in _TYPELESS
        and node.name
        and quantized.isdisjoint(node.input)
        and all(types.get(name) == TensorProto.FLOAT for name in node.output)
    )
