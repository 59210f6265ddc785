"""Exported graphs of the small random networks, with ranges seen on random images."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import onnx
from numpy.typing import NDArray

from parnet_deploy.export.fuse import fuse_network
from parnet_deploy.export.to_onnx import part_to_onnx
from parnet_deploy.input_size import InputSize
from parnet_deploy.quantize.chain import PartChain
from parnet_deploy.quantize.observe import observe, open_observed
from parnet_deploy.quantize.ranges import choose_range
from parnet_deploy.quantize.table import TensorRange
from parnet_deploy.spec import ModelSpec
from tests.networks import SPECS, random_state


@dataclass(frozen=True, kw_only=True)
class Exported:
    """A network's part graphs, images, and what was seen on them."""

    spec: ModelSpec
    graphs: dict[str, onnx.ModelProto]
    images: NDArray[np.float32]
    ranges: dict[str, TensorRange]
    full: PartChain


@cache
def exported(name: str, dynamic: bool = False) -> Exported:
    spec = SPECS[name]
    side = spec.size_multiple
    size = InputSize(low=(side, side), high=(2 * side, 2 * side) if dynamic else (side, side))
    network = fuse_network(random_state(spec), spec)
    graphs = {part.name: part_to_onnx(network, part, size) for part in spec.parts}
    shape = (8, spec.in_channels, side, side)
    images = np.random.default_rng(1).standard_normal(shape, dtype=np.float32)
    seen = observe(open_observed(spec, graphs), images).histograms
    ranges = {}
    for tensor, found in seen.items():
        low, high = choose_range(found, "minmax")
        ranges[tensor] = TensorRange(min=found.low, max=found.high, low=low, high=high, clipped=0.0)
    full = PartChain(spec, graphs)
    return Exported(spec=spec, graphs=graphs, images=images, ranges=ranges, full=full)


def constants(model: onnx.ModelProto) -> dict[str, NDArray[np.float32]]:
    return {w.name: onnx.numpy_helper.to_array(w) for w in model.graph.initializer}


def by_output(model: onnx.ModelProto) -> dict[str, onnx.NodeProto]:
    return {name: node for node in model.graph.node for name in node.output}
