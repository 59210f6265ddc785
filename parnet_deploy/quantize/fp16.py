"""A part's graph in float16, with float32 inputs and outputs.

The weights were folded in float64 and stored in float32 before; casting the unfused network
instead would overflow on statistics that the fold removes. A layer whose weights or calibrated
activations do not fit float16 stays in float32 whole.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from .qdq import layer_of
from .table import TensorRange

FLOAT16_MAX = 65504.0
HEADROOM = 8.0  # calibrated activations may grow by this much on other images

_HALF, _FLOAT = int(TensorProto.FLOAT16), int(TensorProto.FLOAT)
_SUFFIX = {_HALF: "half", _FLOAT: "float"}


def unfit_layers(model: onnx.ModelProto, ranges: Mapping[str, TensorRange]) -> dict[str, str]:
    """Layers of a part that must stay in float32, and why.

    Weights must be below float16's largest value, activations below an eighth of it.
    """
    constants = {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}
    found: dict[str, str] = {}
    for node in model.graph.node:
        layer = layer_of(node)
        for name in node.input:
            value = constants.get(name)
            if value is not None and value.dtype == np.float32 and value.size:
                largest = float(np.abs(value).max())
                if largest > FLOAT16_MAX:
                    found.setdefault(layer, f"{name} holds {largest:.3g}")
        for name in (*node.input, *node.output):
            seen = ranges.get(name)
            if seen is not None and max(-seen.min, seen.max) > FLOAT16_MAX / HEADROOM:
                found.setdefault(layer, f"{name} reaches {max(-seen.min, seen.max):.3g}")
    return found


def cast_to_half(model: onnx.ModelProto, *, keep: Collection[str] = ()) -> onnx.ModelProto:
    """A copy of a part's float32 graph that computes in float16.

    Args:
        model: The part, float32; not modified.
        keep: Layers that stay in float32.

    Raises:
        onnx.checker.ValidationError: The graph is wrong, which would be a bug here.
    """
    caster = _Caster(model, keep)
    for node in caster.model.graph.node:
        caster.add(node)
    return caster.finish()


class _Caster:
    """Goes through a graph once; every tensor gets the type of the layer that writes it."""

    def __init__(self, model: onnx.ModelProto, keep: Collection[str]) -> None:
        self.model = onnx.ModelProto()
        self.model.CopyFrom(model)
        graph = self.model.graph
        self._keep = keep
        self._constants = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
        shapes = onnx.shape_inference.infer_shapes(model).graph
        values = (*shapes.value_info, *shapes.input, *shapes.output)
        self._floats = {v.name for v in values if v.type.tensor_type.elem_type == _FLOAT}
        self._outputs = {value.name for value in graph.output}
        self._types = {value.name: _FLOAT for value in graph.input}
        self._cast: dict[tuple[str, int], str] = {}
        self._added: dict[str, onnx.TensorProto] = {}
        self._nodes: list[onnx.NodeProto] = []

    def add(self, node: onnx.NodeProto) -> None:
        """Append a node, its inputs cast to the type it computes in."""
        half = layer_of(node) not in self._keep and node.op_type != "ConstantOfShape"
        kind = _HALF if half else _FLOAT
        for i, name in enumerate(node.input):
            node.input[i] = self._as(name, kind)
        output = node.output[0]
        self._nodes.append(node)
        if output not in self._floats:
            return
        self._types[output] = kind
        if output in self._outputs and kind == _HALF:
            node.output[0] = f"{output}/half"
            self._nodes.append(_cast(f"{output}/half", output, _FLOAT, label=self._label(output)))
            self._cast[output, _HALF] = f"{output}/half"
            self._types[output] = _FLOAT

    def _as(self, name: str, kind: int) -> str:
        """The tensor in this type."""
        value = self._constants.get(name)
        if value is not None:
            if value.dtype != np.float32 or kind == _FLOAT:
                return name
            self._added[f"{name}/half"] = numpy_helper.from_array(
                value.astype(np.float16), f"{name}/half"
            )
            return f"{name}/half"
        if name not in self._floats or self._types[name] == kind:
            return name
        if (name, kind) not in self._cast:
            label = self._label(name)
            self._nodes.append(_cast(name, f"{label}/{_SUFFIX[kind]}", kind, label=label))
            self._cast[name, kind] = f"{label}/{_SUFFIX[kind]}"
        return self._cast[name, kind]

    def _label(self, name: str) -> str:
        """A name that no other part uses: two may read the same tensor."""
        graph = self.model.graph
        outside = {value.name for value in (*graph.input, *graph.output)}
        return f"{graph.name}/{name}" if name in outside else name

    def finish(self) -> onnx.ModelProto:
        """The graph, checked."""
        graph = self.model.graph
        read = {name for node in self._nodes for name in node.input}
        kept = [item for item in graph.initializer if item.name in read]
        del graph.node[:], graph.initializer[:]
        graph.node.extend(self._nodes)
        graph.initializer.extend([*kept, *self._added.values()])
        onnx.checker.check_model(self.model, full_check=True)
        return self.model


def _cast(source: str, target: str, kind: int, *, label: str) -> onnx.NodeProto:
    return helper.make_node("Cast", [source], [target], name=f"{label}/to_{_SUFFIX[kind]}", to=kind)
