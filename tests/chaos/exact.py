"""A stand-in for a network's arithmetic: whole numbers, so that any order of the work is exact.

Each part's output depends on every element of its inputs and on where it stands. NaN, which the
simulator puts wherever something is read too early, spreads to the logits, and so does an image of
another call. All numbers are whole and far below 2**53, so float64 sums have one value only.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from functools import cache

import numpy as np
from numpy.typing import NDArray

from parnet_deploy.placement import Segment
from parnet_deploy.spec import IMAGE, LOGITS, ModelSpec, PartSpec

Array = NDArray[np.float32]

_PRIME = 4093


def segment_kernel(spec: ModelSpec) -> Callable[[Segment], Callable[[Mapping], Mapping]]:
    """What the engine of a segment computes: its parts, one after the other."""

    def for_segment(segment: Segment) -> Callable[[Mapping], Mapping]:
        parts = [part for part in spec.parts if part.name in segment.parts]

        def run(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
            values = dict(inputs)
            for part in parts:
                values[part.output] = _compute(spec, part, values)
            return {name: values[name] for name in segment.outputs}

        return run

    return for_segment


def reference(spec: ModelSpec, images: Array) -> Array:
    """Logits (N, K), all parts one after the other."""
    values = {IMAGE: images}
    for part in spec.parts:
        values[part.output] = _compute(spec, part, values)
    return values[LOGITS]


def _compute(spec: ModelSpec, part: PartSpec, values: Mapping[str, Array]) -> Array:
    total, shape, batch = 1.0, (0,), 0
    for name in part.inputs:
        x = values[name]
        batch, shape = len(x), _output_shape(spec, part, name, x.shape[2:])
        flat = x.reshape(batch, -1).astype(np.float64)
        total = total + _factor(part.name, name) * (flat @ _weights(flat.shape[1]))
    rows = np.mod(total, _PRIME)[:, None] + _weights(int(np.prod(shape)))  # (N, elements)
    return rows.astype(np.float32).reshape(batch, *shape)


@cache
def _output_shape(
    spec: ModelSpec, part: PartSpec, source: str, size: tuple[int, int]
) -> tuple[int, ...]:
    level = spec.tensors[source].level
    assert level is not None  # nothing reads the logits
    return spec.tensors[part.output].shape(size[0] << level, size[1] << level)


@cache
def _factor(part: str, source: str) -> float:
    return float(1 + zlib.crc32(f"{part}/{source}".encode()) % (_PRIME - 1))


@cache
def _weights(count: int) -> NDArray[np.float64]:
    return 1.0 + np.arange(count) % 61
