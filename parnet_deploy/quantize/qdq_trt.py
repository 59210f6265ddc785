"""The INT8 graph for TensorRT: S8 symmetric, pairs only where its fusions want them.

- On the input and the weight of every 3x3 convolution; never on its output: the next pair becomes
  the scale that the fused kernel writes.
- On one input of an addition after a convolution, the side that the kernel does not compute.
- None between convolution, gate product, sigmoid and product: they fuse as they are.
- The gate (1x1 on the pooled input), the classifier, and the first convolution (three channels)
  stay in floating point; biases too.
- Tensors between parts stay in floating point; the reader's pair is one for all its uses.

Source: NVIDIA TensorRT developer guide, "Q/DQ Layer-Placement Recommendations".
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import onnx

from ..spec import IMAGE
from .qdq import QdqWriter, layer_of, readers, symmetric
from .table import TensorRange

WEIGHT_LIMIT = 127
CONVOLUTIONS = ("conv", "conv_a", "conv_b")
"""Names, after the block's, of the convolutions that become INT8; the gates have others."""


def quantize_for_tensorrt(
    model: onnx.ModelProto,
    ranges: Mapping[str, TensorRange],
    *,
    keep: Collection[str] = (),
) -> onnx.ModelProto:
    """A part's float32 graph with TensorRT's pairs.

    Args:
        model: The part, float32; not modified.
        ranges: Range of every activation.
        keep: Layers that stay in floating point.

    Raises:
        KeyError: ``ranges`` lacks a tensor: it belongs to another model.
    """
    writer = QdqWriter(model)
    chosen = [node for node in model.graph.node if is_quantized(node, keep)]
    for node in chosen:
        writer.quantize(node.input[0], symmetric(ranges[node.input[0]]))
        writer.quantize_channels(node.input[1], WEIGHT_LIMIT, None)
    outputs = {node.output[0] for node in chosen}
    for node in model.graph.node:
        side = _side(node, outputs, model, writer)
        if side is not None:
            writer.quantize(side, symmetric(ranges[side]))
    return writer.write()


def is_quantized(node: onnx.NodeProto, keep: Collection[str]) -> bool:
    """Whether a node is a convolution that becomes INT8."""
    place = str(node.name).rpartition("/")[2]
    return (
        node.op_type == "Conv"
        and place in CONVOLUTIONS
        and layer_of(node) not in keep
        and node.input[0] != IMAGE
    )


def _side(
    node: onnx.NodeProto, outputs: Collection[str], model: onnx.ModelProto, writer: QdqWriter
) -> str | None:
    """The operand of an addition that gets a pair: not the convolution that the sum fuses with."""
    if node.op_type != "Add" or not set(node.input) & set(outputs):
        return None
    first, second = node.input
    side = second if first in outputs else first
    alone = len(list(readers(model, side))) == 1
    return side if side not in writer.constants and alone else None
