"""ONNX graphs seen from their tensors: who writes them, what they need, and graphs that show them.

A tensor is known by its name. Names of blocks survive merging, so a tensor of an engine file and of
the graph that it was made from are the same tensor if they have the same name.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import cached_property

import numpy as np
import onnx
from onnx import helper, numpy_helper


class Graph:
    """A model, with look-ups by tensor. The model is not modified."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model

    @cached_property
    def writers(self) -> dict[str, onnx.NodeProto]:
        """Node by the tensor that it writes, in the order of execution."""
        return {name: node for node in self.model.graph.node for name in node.output if name}

    @cached_property
    def weights(self) -> dict[str, onnx.TensorProto]:
        """Initializers by name."""
        return {item.name: item for item in self.model.graph.initializer}

    @property
    def outputs(self) -> list[str]:
        """What the model answers."""
        return [item.name for item in self.model.graph.output]

    def reads(self, tensor: str) -> list[str]:
        """The tensors that its node computes it from; weights and the model's inputs left out."""
        return [name for name in self.writers[tensor].input if name in self.writers]

    def behind(self, tensor: str) -> set[str]:
        """Every tensor that it is computed from, and itself."""
        found, waiting = set[str](), [tensor]
        while waiting:
            name = waiting.pop()
            if name not in found:
                found.add(name)
                waiting += self.reads(name)
        return found

    def showing(self, tensors: Sequence[str]) -> bytes:
        """The whole model, with these tensors as its outputs."""
        return self._with(self.model.graph.node, tensors)

    def ending_at(self, tensor: str) -> bytes:
        """The part of the model that computes one tensor, and answers nothing else."""
        needed = self.behind(tensor)
        nodes = [n for n in self.model.graph.node if needed & set(n.output)]
        return self._with(nodes, [tensor])

    def _with(self, nodes: Iterable[onnx.NodeProto], tensors: Sequence[str]) -> bytes:
        nodes = list(nodes)
        read = {name for node in nodes for name in node.input}
        types = {item.name: item for item in self.model.graph.output}
        graph = helper.make_graph(
            nodes,
            self.model.graph.name,
            [item for item in self.model.graph.input if item.name in read],
            [types.get(name) or onnx.ValueInfoProto(name=name) for name in tensors],
            [item for name, item in self.weights.items() if name in read],
        )
        made = helper.make_model(graph, opset_imports=self.model.opset_import)
        made.ir_version = self.model.ir_version
        return bytes(made.SerializeToString())


def differences(got: Graph, expected: Graph, tensor: str) -> Iterator[str]:
    """How the node that writes a tensor differs in two graphs, one sentence each."""
    if tensor not in got.writers or tensor not in expected.writers:
        return
    node, other = got.writers[tensor], expected.writers[tensor]
    if node.op_type != other.op_type:
        yield f"operator: got {node.op_type}, expected {other.op_type}"
        return
    yield from _attribute_differences(node, other)
    for i, (name, wanted) in enumerate(_pairs(node.input, other.input)):
        ours, theirs = got.weights.get(name), expected.weights.get(wanted)
        if ours is None and theirs is None:
            if name != wanted:
                yield f"input {i}: got {name or 'none'}, expected {wanted or 'none'}"
        elif ours is None or theirs is None:
            yield f"input {i}: got {_kind(ours)}, expected {_kind(theirs)}"
        else:
            yield from _weight_differences(name, ours, theirs)


def _attribute_differences(node: onnx.NodeProto, other: onnx.NodeProto) -> Iterator[str]:
    got, expected = (
        {item.name: helper.get_attribute_value(item) for item in each.attribute}
        for each in (node, other)
    )
    for name in sorted(got.keys() | expected.keys()):
        if got.get(name) != expected.get(name):
            yield f"attribute {name}: got {got.get(name)}, expected {expected.get(name)}"


def _weight_differences(
    name: str, got: onnx.TensorProto, expected: onnx.TensorProto
) -> Iterator[str]:
    ours, theirs = numpy_helper.to_array(got), numpy_helper.to_array(expected)
    if ours.shape != theirs.shape or ours.dtype != theirs.dtype:
        yield (
            f"weight {name}: got {ours.dtype} {ours.shape}, expected {theirs.dtype} {theirs.shape}"
        )
        return
    unequal = np.argwhere(ours != theirs)  # NaN is unequal to everything
    if len(unequal):
        first = tuple(int(i) for i in unequal[0])
        yield (
            f"weight {name}: {len(unequal)} of {ours.size} numbers differ, the first at {first}: "
            f"got {ours[first]:g}, expected {theirs[first]:g}"
        )


def _pairs(got: Collection[str], expected: Collection[str]) -> Iterator[tuple[str, str]]:
    count = max(len(got), len(expected))
    padded = (([*names] + [""] * count)[:count] for names in (got, expected))
    return zip(*padded, strict=True)


def _kind(weight: onnx.TensorProto | None) -> str:
    return "something computed" if weight is None else f"the weight {weight.name}"
