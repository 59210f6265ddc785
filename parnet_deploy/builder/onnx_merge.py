"""Join the ONNX graphs of a segment's parts into one, by the names of the tensors they share.

Every node and weight bears the name of its block and every tensor between parts its own name, so
joining is putting the nodes of the parts one after the other. (``onnx.compose`` merges pair by pair
and copies and checks all weights each time, which took about twice as long for ParNet-XL.)
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx
from onnx import helper

from ..errors import EngineBuildError
from ..placement import Segment
from ..spec import ModelSpec
from .onnx_tidy import join_codes


def merge_segment(
    segment: Segment, spec: ModelSpec, parts: Mapping[str, onnx.ModelProto]
) -> onnx.ModelProto:
    """One ONNX model with exactly the segment's inputs and outputs, in their order.

    Args:
        segment: Which parts, and which of their tensors are needed outside.
        spec: The network, for the order of the parts.
        parts: The graph of each part by its name; not modified.

    Raises:
        EngineBuildError: The graphs do not fit together (artifacts of different models).
    """
    try:
        models = [parts[part.name] for part in spec.parts if part.name in segment.parts]
        values = _values(models)
        merged = helper.make_model(
            helper.make_graph(
                [node for model in models for node in model.graph.node],
                segment.name,
                [values[name] for name in segment.inputs],
                [values[name] for name in segment.outputs],
                [weight for model in models for weight in model.graph.initializer],
            ),
            opset_imports=models[0].opset_import,
            producer_name=models[0].producer_name,
            producer_version=models[0].producer_version,
        )
        merged.ir_version = models[0].ir_version
        onnx.checker.check_model(join_codes(merged))
    except (onnx.checker.ValidationError, KeyError, ValueError) as error:
        raise EngineBuildError(
            f"segment {segment.name}: cannot join parts {', '.join(segment.parts)}: {error}. "
            "The graphs are of different models. Run: parnet-deploy export."
        ) from error
    return merged


def _values(models: list[onnx.ModelProto]) -> dict[str, onnx.ValueInfoProto]:
    """What the graphs read and write, by name; who writes a tensor and who reads it must agree."""
    values: dict[str, onnx.ValueInfoProto] = {}
    for model in models:
        for value in (*model.graph.input, *model.graph.output):
            if values.setdefault(value.name, value).type != value.type:
                raise ValueError(f"tensor {value.name} has two shapes or types")
    return values
