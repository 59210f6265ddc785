"""The forms that a part's graph can take, by name, with layers kept in float32 where asked.

``fp16``: float16, for GPUs (a CPU computes it in float32 with casts).
``int8-cpu``: ONNX Runtime's integer kernels. ``int8-trt``: TensorRT's fusions.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial

import onnx

from ..errors import SpecError
from ..spec import ModelSpec
from .chain import Graphs
from .fp16 import cast_to_half, unfit_layers
from .qdq import layers
from .qdq_cpu import quantize_for_cpu
from .qdq_trt import quantize_for_tensorrt
from .table import CalibrationTable

TARGETS = ("fp16", "int8-cpu", "int8-trt")
KERNELS_HERE = ("fp16", "int8-cpu")
"""Targets whose graphs ONNX Runtime runs as the engines will; the others are emulated only."""

Convert = Callable[..., onnx.ModelProto]


def check_target(target: str) -> str:
    """Return the name, or refuse it.

    Raises:
        SpecError: There is no such target.
    """
    if target not in TARGETS:
        raise SpecError(f"precision: got {target!r}, expected one of {', '.join(TARGETS)}.")
    return target


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A block (or the classifier) as the unit of precision: all its operations go together.

    ``macs`` are the multiply-accumulates of its convolutions for one image.
    """

    name: str
    part: str
    macs: int


class Converter:
    """Makes a network's graphs in one target's form; parts that do not change are made once."""

    def __init__(
        self, graphs: Graphs, table: CalibrationTable, target: str, *, weight_limit: int
    ) -> None:
        self.graphs = graphs
        self.target = check_target(target)
        ranges = table.tensors
        converters: Mapping[str, Convert] = {
            "fp16": cast_to_half,
            "int8-cpu": partial(quantize_for_cpu, ranges=ranges, limit=weight_limit),
            "int8-trt": partial(quantize_for_tensorrt, ranges=ranges),
        }
        self._convert = converters[target]
        self._made: dict[tuple[str, frozenset[str]], onnx.ModelProto] = {}
        self.unfit: dict[str, str] = {}
        if target == "fp16":
            for model in graphs.values():
                self.unfit |= unfit_layers(model, ranges)

    def part(self, name: str, keep: Collection[str]) -> onnx.ModelProto:
        """One part, with these layers (and those that do not fit) in float32."""
        model = self.graphs[name]
        mine = frozenset({*keep, *self.unfit} & set(layers(model)))
        if (name, mine) not in self._made:
            self._made[name, mine] = self._convert(model, keep=mine)
        return self._made[name, mine]

    def all(self, keep: Collection[str] = ()) -> dict[str, onnx.ModelProto]:
        """Every part."""
        return {name: self.part(name, keep) for name in self.graphs}

    def only(self, layer: Layer) -> dict[str, onnx.ModelProto]:
        """The part of this layer, and nothing but the layer in low precision."""
        others = set(layers(self.graphs[layer.part])) - {layer.name}
        return {layer.part: self.part(layer.part, others)}


def list_layers(spec: ModelSpec, size: tuple[int, int]) -> tuple[Layer, ...]:
    """Every block and the classifier, in the order of the network."""
    tensors = spec.tensors
    found = []
    for part in spec.parts:
        height, width = tensors[part.inputs[0]].shape(*size)[1:]
        for block in part.blocks:
            macs = block.macs(height, width)
            found.append(Layer(name=block.name, part=part.name, macs=macs))
            height, width = height // block.stride, width // block.stride
    head = spec.planes[-1] * spec.num_classes
    return (*found, Layer(name="head", part=spec.parts[-1].name, macs=head))
