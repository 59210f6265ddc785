"""Remove from a merged graph the 8-bit round trips at the borders of its parts.

A part that is quantized ends with DequantizeLinear and its readers begin with QuantizeLinear of the
same scale: together they change nothing, and what is left is one 8-bit tensor for all readers, as
backends want it. Nothing happens to graphs without such nodes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import onnx

Code = tuple[bytes, ...]


def join_codes(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph, in place: each tensor is quantized once, and never again after its own code.

    Exact: ``QuantizeLinear(DequantizeLinear(q))`` with one scale and zero point is ``q``, for the
    product of a code and its scale is far nearer to it than half a step.
    """
    graph = model.graph
    weights = {item.name: item for item in graph.initializer}
    writers = {name: node for node in graph.node for name in node.output}
    renamed: dict[str, str] = {}
    known: dict[tuple[str, Code], str] = {}
    for node in _quantizers(graph):
        code = _code(node, weights)
        writer = writers.get(node.input[0])
        if writer is not None and writer.op_type == "DequantizeLinear":
            if _code(writer, weights) == code:
                renamed[node.output[0]] = renamed.get(writer.input[0], writer.input[0])
            continue
        first = known.setdefault((node.input[0], code), node.output[0])
        if first != node.output[0]:
            renamed[node.output[0]] = first
    if renamed:
        _rewire(graph, renamed)
    return model


def _quantizers(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    return (node for node in graph.node if node.op_type == "QuantizeLinear")


def _code(node: onnx.NodeProto, weights: Mapping[str, onnx.TensorProto]) -> Code:
    """Scale, zero point and its type, by value; by name where they are no constants."""
    found = []
    for name in node.input[1:]:
        item = onnx.TensorProto()
        if name in weights:
            item.CopyFrom(weights[name])
            item.name = ""
        else:
            item.name = name
        found.append(item.SerializeToString(deterministic=True))
    return tuple(found)


def _rewire(graph: onnx.GraphProto, renamed: Mapping[str, str]) -> None:
    """Let readers read the other tensor, and drop the nodes and constants that nobody reads now."""
    for node in graph.node:
        for i, name in enumerate(node.input):
            node.input[i] = renamed.get(name, name)
    wanted = {value.name for value in graph.output}
    kept = []
    for node in reversed(graph.node):  # readers come after writers
        if wanted & set(node.output):
            wanted |= set(node.input)
            kept.append(node)
    weights = [item for item in graph.initializer if item.name in wanted]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(reversed(kept))
    graph.initializer.extend(weights)
