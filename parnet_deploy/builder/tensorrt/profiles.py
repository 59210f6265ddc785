"""Optimisation profiles: which shapes an engine is tuned for. Batch 1 has one of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ...errors import SpecError
from ...input_size import InputSize
from ...placement import Segment
from ...spec import ModelSpec


class ShapeRange(NamedTuple):
    """Least, usual (what tactics are timed on) and greatest shape of one input."""

    least: tuple[int, ...]
    usual: tuple[int, ...]
    greatest: tuple[int, ...]


Profile = Mapping[str, ShapeRange]
"""A range for every input of an engine."""


def segment_profiles(
    segment: Segment, spec: ModelSpec, size: InputSize, *, max_batch: int
) -> tuple[Profile, ...]:
    """Batch of exactly 1 for latency, and 2 to ``max_batch`` if there are batches.

    Sizes reach from the least to the greatest that the deployment accepts; tactics are timed on the
    greatest.
    """
    batches = [(1, 1)] if max_batch == 1 else [(1, 1), (2, max_batch)]
    profiles = []
    for low, high in batches:
        ranges = {}
        for name in segment.inputs:
            least = (low, *spec.tensors[name].shape(*size.low))
            greatest = (high, *spec.tensors[name].shape(*size.high))
            ranges[name] = ShapeRange(least, greatest, greatest)
        profiles.append(ranges)
    return tuple(profiles)


def check_profiles(
    profiles: Sequence[Profile], inputs: Mapping[str, Sequence[int | None]], where: str
) -> None:
    """Refuse profiles that TensorRT would refuse in fewer words.

    Args:
        profiles: What was asked for.
        inputs: Shape of each input of the graph; None is a free axis.
        where: Which engine, for the error text.

    Raises:
        SpecError: Names differ, an axis differs from the graph, or least <= usual <= greatest does
            not hold.
    """
    if not profiles:
        raise SpecError(f"profiles of {where}: got none, expected at least one.")
    for number, profile in enumerate(profiles):
        at = f"profile {number} of {where}"
        if set(profile) != set(inputs):
            raise SpecError(f"{at}: got inputs {sorted(profile)}, expected {sorted(inputs)}.")
        for name, ranges in profile.items():
            if {len(shape) for shape in ranges} != {len(inputs[name])}:
                raise SpecError(
                    f"{at}, input {name}: got shapes {ranges}, expected {len(inputs[name])} axes."
                )
            for axis, (least, usual, greatest) in enumerate(zip(*ranges, strict=True)):
                fixed = inputs[name][axis]
                if not 1 <= least <= usual <= greatest:
                    raise SpecError(
                        f"{at}, input {name}, axis {axis}: got {least}, {usual}, {greatest}, "
                        "expected 1 <= least <= usual <= greatest."
                    )
                if fixed is not None and not least == greatest == fixed:
                    raise SpecError(
                        f"{at}, input {name}, axis {axis}: got {least} to {greatest}, expected "
                        f"{fixed}, which the graph fixes."
                    )


def profiles_to_json(profiles: Sequence[Profile]) -> list[dict[str, list[list[int]]]]:
    """Plain JSON types; ``profiles_from_json`` reads them back."""
    return [
        {name: [list(shape) for shape in ranges] for name, ranges in profile.items()}
        for profile in profiles
    ]


def profiles_from_json(data: Any) -> tuple[Profile, ...]:
    """Inverse of ``profiles_to_json``."""
    return tuple(
        {name: ShapeRange(*(tuple(shape) for shape in ranges)) for name, ranges in item.items()}
        for item in data
    )
