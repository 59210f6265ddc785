"""What the segments of a placement cost in multiply-accumulates, and what waits behind each.

The only model of time in this package: arithmetic, nothing else. It knows neither launches nor
copies nor how well a layer fills a device, so it orders and explains; it never replaces a
measurement.
"""

from __future__ import annotations

from collections.abc import Mapping

from .placement import Placement
from .spec import ModelSpec


def segment_macs(
    placement: Placement, spec: ModelSpec, height: int = 0, width: int = 0
) -> dict[str, int]:
    """Multiply-accumulates of each segment for one image; of the smallest legal size if not given.

    A part that several segments compute counts in each.
    """
    macs = spec.macs(height or spec.size_multiple, width or spec.size_multiple)
    return {
        segment.name: sum(macs[part] for part in segment.parts) for segment in placement.segments
    }


def direct_needs(placement: Placement) -> dict[str, tuple[str, ...]]:
    """For each segment those that come first: its producers, and the one before it in its lane."""
    home = {name: segment.name for segment in placement.segments for name in segment.outputs}
    in_lane: dict[tuple[int, int], str] = {}
    found = {}
    for segment in placement.segments:
        lane = (segment.device, segment.lane)
        before = [in_lane[lane]] if lane in in_lane else []
        before += [home[name] for name in segment.inputs if name in home]
        found[segment.name] = tuple(dict.fromkeys(before))
        in_lane[lane] = segment.name
    return found


def work_behind(placement: Placement, macs: Mapping[str, int]) -> dict[str, int]:
    """For each segment the most arithmetic on any way from its start to the end of the network."""
    needs = direct_needs(placement)
    behind = {segment.name: 0 for segment in placement.segments}
    for segment in reversed(placement.segments):
        behind[segment.name] += macs[segment.name]
        for name in needs[segment.name]:
            behind[name] = max(behind[name], behind[segment.name])
    return behind
