"""A processor without VNNI in numpy: pairs of U8 x S8 products are added in 16 bits and saturate.

ONNX's reference evaluator runs a quantized part node by node; its convolutions go through here.
"""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from parnet_deploy.quantize.chain import Graphs
from parnet_deploy.spec import IMAGE, LOGITS, ModelSpec

DOMAIN = "tests.saturating"


class PairConv(OpRun):
    """Convolution of codes; what it returns is in real units, as the float one's output."""

    op_domain = DOMAIN

    def _run(self, x, x_scale, x_zero, w, w_scale, bias, stride=1, pad=0, group=1):
        count = w.shape[0] // group
        channels = w.shape[1]
        parts = []
        for g in range(group):
            codes = x[:, g * channels : (g + 1) * channels]
            kernels = w[g * count : (g + 1) * count]
            parts.append(_pairwise(codes, int(x_zero), kernels, stride, pad))
        sums = np.concatenate(parts, axis=1)  # (N, O, OH, OW), int64
        scale = (x_scale * w_scale).reshape(1, -1, 1, 1)
        return ((sums * scale + bias.reshape(1, -1, 1, 1)).astype(np.float32),)


def _pairwise(
    x: NDArray[np.uint8], zero: int, w: NDArray[np.int8], stride: int, pad: int
) -> NDArray[np.int64]:
    size = w.shape[2]
    padded = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)), constant_values=zero)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (size, size), (2, 3))
    windows = windows[:, :, ::stride, ::stride]  # (N, C, OH, OW, k, k)
    rows = windows.transpose(0, 2, 3, 4, 5, 1).reshape(*windows.shape[:1], *windows.shape[2:4], -1)
    kernels = w.transpose(0, 2, 3, 1).reshape(len(w), -1)  # (O, K)
    if rows.shape[-1] % 2:
        rows = np.concatenate([rows, np.zeros_like(rows[..., :1])], -1)
        kernels = np.concatenate([kernels, np.zeros_like(kernels[:, :1])], -1)
    found = []
    for kernel in kernels.astype(np.int64):
        products = rows.astype(np.int64) * kernel
        pairs = products[..., ::2] + products[..., 1::2]
        found.append(np.clip(pairs, -(2**15), 2**15 - 1).sum(-1) - zero * kernel.sum())
    return np.stack(found, axis=1)


def rewrite(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same part, with ``PairConv`` where a convolution reads two codes."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    source = {name: node for node in copy.graph.node for name in node.output}
    constants = {item.name for item in copy.graph.initializer}
    nodes = []
    for node in copy.graph.node:
        x, w = (source.get(name) for name in node.input[:2]) if len(node.input) > 1 else (None,) * 2
        if node.op_type != "Conv" or x is None or w is None:
            nodes.append(node)
            continue
        attributes = {a.name: a for a in node.attribute}
        assert w.op_type == x.op_type == "DequantizeLinear"
        bias = node.input[2] if len(node.input) > 2 else "no_bias"
        assert bias == "no_bias" or bias in source or bias in constants
        inputs = [*x.input, *w.input[:2], bias]
        nodes.append(
            helper.make_node(
                "PairConv",
                inputs,
                list(node.output),
                name=node.name,
                domain=DOMAIN,
                stride=attributes["strides"].ints[0],
                pad=attributes["pads"].ints[0],
                group=attributes["group"].i,
            )
        )
    copy.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros(1, np.float32), "no_bias"))
    del copy.graph.node[:]
    copy.graph.node.extend(nodes)
    copy.opset_import[0].version = 19  # the evaluator knows DequantizeLinear from there on
    copy.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    return copy


def saturating_logits(
    spec: ModelSpec, graphs: Graphs, images: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Logits of the whole network on such a processor."""
    values = {IMAGE: images}
    for part in spec.parts:
        evaluator = ReferenceEvaluator(rewrite(graphs[part.name]), new_ops=[PairConv])
        feeds = {name: values[name] for name in part.inputs}
        with np.errstate(over="ignore"):  # its sigmoid computes both branches
            found = evaluator.run(None, feeds)
        values |= dict(zip(evaluator.output_names, found, strict=True))
    return values[LOGITS]
