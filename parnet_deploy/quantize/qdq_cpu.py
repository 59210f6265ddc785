"""The INT8 graph for ONNX Runtime on the CPU: U8 activations, S8 weights by channel.

Every operation of a quantized block is 8-bit, elementwise ones included: ONNX Runtime then keeps
the block's maps in 8 bits from end to end. S8 activations would be slower than float32 there.
What reads the image stays in float32: the first convolution costs next to nothing, and its weights
in 8 bits were the largest single error that was measured (6 dB of the logits on the demo network).

``WEIGHT_LIMIT_PAIRS``: processors without VNNI add pairs of U8 x S8 products in 16 bits, which
overflows silently (2 * 255 * 127 > 32767). With weights of 7 bits it cannot.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import onnx

from ..spec import IMAGE, LOGITS
from .qdq import MAX_BIAS, Code, QdqWriter, affine, layer_of, readers
from .table import TensorRange

WEIGHT_LIMIT = 127
WEIGHT_LIMIT_PAIRS = 64
FULL_RANGE_ISA = ("avx512_vnni", "avx_vnni", "amx_int8")

_WEIGHTED = ("Conv", "Gemm")
_ELEMENTWISE = ("Add", "Mul", "Sigmoid", "Relu", "GlobalAveragePool", "Flatten", "Gather")


def weight_limit(isa: Collection[str]) -> int:
    """Largest weight code that the int8 kernels of a processor with these instructions can take."""
    return WEIGHT_LIMIT if set(isa) & set(FULL_RANGE_ISA) else WEIGHT_LIMIT_PAIRS


def quantize_for_cpu(
    model: onnx.ModelProto,
    ranges: Mapping[str, TensorRange],
    *,
    keep: Collection[str] = (),
    limit: int = WEIGHT_LIMIT_PAIRS,
) -> onnx.ModelProto:
    """A part's float32 graph with the pairs that ONNX Runtime fuses into integer kernels.

    Args:
        model: The part, float32; not modified.
        ranges: Range of every activation.
        keep: Layers that stay in float32.
        limit: Largest weight code, see ``weight_limit``.

    Raises:
        KeyError: ``ranges`` lacks a tensor: it belongs to another model.
    """
    writer = QdqWriter(model)
    chosen = [node for node in model.graph.node if _is_chosen(node, writer, keep)]
    for node in chosen:
        for name in _activations(node, writer):
            writer.quantize(name, _code(ranges[name]))
        if not _is_absorbed(node, model):
            writer.quantize(node.output[0], _code(ranges[node.output[0]]))
    for node in chosen:
        if node.op_type in _WEIGHTED:
            _quantize_weights(node, writer, limit)
            continue
        for name in node.input:
            if name in writer.constants and writer.constants[name].dtype == np.float32:
                writer.quantize_constant(name)
    return writer.write()


def _is_chosen(node: onnx.NodeProto, writer: QdqWriter, keep: Collection[str]) -> bool:
    if layer_of(node) in keep or IMAGE in node.input:
        return False
    if node.op_type in _WEIGHTED:
        return node.input[1] in writer.constants and not node.name.endswith("/border")
    return node.op_type in _ELEMENTWISE


def _activations(node: onnx.NodeProto, writer: QdqWriter) -> list[str]:
    """Inputs that get a pair; not a ReLU's, which ONNX Runtime drops if its own pair cuts alike."""
    if node.op_type == "Relu":
        return []
    names = node.input[:1] if node.op_type in _WEIGHTED else node.input
    return [name for name in names if name not in writer.constants]


def _is_absorbed(node: onnx.NodeProto, model: onnx.ModelProto) -> bool:
    """Whether no pair goes on the output: the logits, and what a ReLU cuts anyway."""
    after = list(readers(model, node.output[0]))
    into_relu = len(after) == 1 and after[0].op_type == "Relu"
    return node.output[0] == LOGITS or into_relu


def _code(found: TensorRange) -> Code:
    return affine(found.low, found.high)


def _quantize_weights(node: onnx.NodeProto, writer: QdqWriter, limit: int) -> None:
    code = writer.code(node.input[0])
    assert code is not None  # a pair was asked for on every input
    bias = node.input[2] if len(node.input) > 2 else None
    floor = None
    if bias is not None:  # or a dead channel's tiny scale would overflow its bias
        floor = np.abs(writer.constants[bias].astype(np.float64)) / (code.scale * MAX_BIAS)
    writer.quantize_channels(node.input[1], limit, floor)
    if bias is not None:
        scale = writer.channel_scale(node.input[1]).astype(np.float64) * code.scale
        writer.quantize_bias(bias, scale.astype(np.float32))
