"""Run the float32 parts on real images and see what values every tensor takes.

Two passes: the first finds the smallest and the largest value of each tensor, the second counts
values between them in bins. A third look at held-out images tells which share of their values a
chosen range would clip.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto

from ..errors import InputError
from ..spec import ModelSpec
from .chain import Array, Graphs, OnBatch, PartChain, batches, element_types, expose
from .ranges import Histogram


@dataclass(frozen=True, kw_only=True)
class Observed:
    """What was seen of each tensor, the image included."""

    histograms: Mapping[str, Histogram]
    images: int


def activations(model: onnx.ModelProto) -> list[str]:
    """Names of the float32 tensors that the nodes of a graph write."""
    kinds = element_types(model)
    names = (name for node in model.graph.node for name in node.output)
    return [name for name in names if kinds.get(name) == TensorProto.FLOAT]


def open_observed(spec: ModelSpec, graphs: Graphs) -> PartChain:
    """The float32 parts, every activation an output."""
    return PartChain(spec, {k: expose(model, activations(model)) for k, model in graphs.items()})


def observe(
    chain: PartChain,
    images: Array,
    *,
    counted: int | None = None,
    on_batch: OnBatch = lambda done, total: None,
) -> Observed:
    """Ranges and histograms of every tensor.

    Args:
        chain: From ``open_observed``.
        images: Calibration images (N, C, H, W).
        counted: Images that go into the histograms, evenly spread; None: all.
        on_batch: Called with how many images are done, of both passes together.

    Raises:
        InputError: A tensor is NaN or Inf on these images.
    """
    counting = images
    if counted is not None and counted < len(images):
        counting = images[np.linspace(0, len(images) - 1, counted).round().astype(int)]
    total, done = len(images) + len(counting), 0
    low: dict[str, float] = {}
    high: dict[str, float] = {}
    for batch in batches(images):
        for name, values in chain.run(batch).items():
            smallest, largest = float(values.min()), float(values.max())
            if not np.isfinite([smallest, largest]).all():
                raise InputError(
                    f"calibration, tensor {name}: got NaN or Inf in images {done} to "
                    f"{done + len(batch) - 1}, expected finite values. Check those images."
                )
            low[name] = min(low.get(name, smallest), smallest)
            high[name] = max(high.get(name, largest), largest)
        done += len(batch)
        on_batch(done, total)
    histograms = {name: Histogram.empty(low[name], high[name]) for name in low}
    for batch in batches(counting):
        for name, values in chain.run(batch).items():
            histograms[name].add(values)
        done += len(batch)
        on_batch(done, total)
    return Observed(histograms=histograms, images=len(images))


@dataclass(frozen=True, kw_only=True)
class Clipped:
    """Shares of values outside their range: of each tensor, and of all values together."""

    tensors: Mapping[str, float]
    overall: float


def count_clipped(
    chain: PartChain, images: Array, ranges: Mapping[str, tuple[float, float]]
) -> Clipped:
    """Count the values on these images that lie outside the ranges.

    A tensor of few values (a gate's) may have a large share by chance; all together tell whether
    the ranges are those of such images.
    """
    outside = dict.fromkeys(ranges, 0)
    seen = dict.fromkeys(ranges, 0)
    for batch in batches(images):
        for name, values in chain.run(batch).items():
            if name in ranges:
                low, high = ranges[name]
                outside[name] += int(np.count_nonzero((values < low) | (values > high)))
                seen[name] += values.size
    return Clipped(
        tensors={name: outside[name] / seen[name] for name in ranges if seen[name]},
        overall=sum(outside.values()) / max(sum(seen.values()), 1),
    )
