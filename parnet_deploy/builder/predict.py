"""How long a placement would take if arithmetic were all: a bound and an explanation, no promise.

The model: every multiply-accumulate takes the same time, a device works through one engine at a
time, copies and launches are free. So it says what overlap can give at best, and which engines
stand on the critical path. What it leaves out (launches, copies, how well a small layer fills a
GPU, what one engine does with auxiliary streams) is what measuring is for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..arithmetic import direct_needs, segment_macs, work_behind
from ..input_size import InputSize
from ..placement import Placement, Segment
from ..spec import ModelSpec


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """Times in multiply-accumulates of one device; ``ratio`` in units of one engine on one device.

    ``critical`` are the segments that end one when the next begins, up to the last. ``busy`` is the
    share of the time in which each device works. ``copied_bytes`` is what crosses between devices
    for one image in float32; it costs nothing in the model.
    """

    total_macs: int
    path_macs: int
    critical: tuple[str, ...]
    busy: Mapping[int, float]
    copied_bytes: int

    @property
    def ratio(self) -> float:
        """Time in units of one engine on one device."""
        return self.path_macs / self.total_macs

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "ratio": self.ratio,
            "critical": list(self.critical),
            "busy": {str(device): share for device, share in self.busy.items()},
            "copied_bytes": self.copied_bytes,
        }


@dataclass(frozen=True, kw_only=True)
class Bound:
    """What no placement on so many devices can beat in the model.

    ``parts`` is the longest way through the network; with few devices their number decides instead
    (``by`` is "path" or "devices").
    """

    ratio: float
    by: str
    parts: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types; ``speedup`` is the inverse of ``ratio``."""
        return {
            "ratio": self.ratio,
            "speedup": 1 / self.ratio,
            "by": self.by,
            "parts": list(self.parts),
        }


def predict(placement: Placement, spec: ModelSpec, size: InputSize) -> Prediction:
    """Schedule a placement by its arithmetic, for the largest image.

    Each device that is free takes, of the engines that could start, the one with most arithmetic
    behind it.
    """
    macs = segment_macs(placement, spec, *size.high)
    needs = direct_needs(placement)
    behind = work_behind(placement, macs)
    waiting = list(placement.segments)
    ends: dict[str, int] = {}
    free: dict[int, int] = dict.fromkeys(placement.devices, 0)
    latest: dict[int, str] = {}
    blocked_by: dict[str, str | None] = {}
    while waiting:
        start, chosen = _next(waiting, needs, ends, free, behind)
        waiting.remove(chosen)
        before = [*needs[chosen.name]]
        if chosen.device in latest:
            before.append(latest[chosen.device])
        blocked_by[chosen.name] = max(before, key=lambda name: ends[name]) if before else None
        ends[chosen.name] = free[chosen.device] = start + macs[chosen.name]
        latest[chosen.device] = chosen.name
    path_macs = max(ends.values())
    busy = dict.fromkeys(placement.devices, 0.0)
    for segment in placement.segments:
        busy[segment.device] += macs[segment.name] / path_macs
    return Prediction(
        total_macs=sum(spec.macs(*size.high).values()),
        path_macs=path_macs,
        critical=_walk_back(max(ends, key=lambda name: ends[name]), blocked_by),
        busy=busy,
        copied_bytes=copied_bytes(placement, spec, size),
    )


def best_possible(spec: ModelSpec, size: InputSize, devices: int) -> Bound:
    """The least time that any placement on so many devices could take in the model."""
    macs = spec.macs(*size.high)
    makers = {part.output: part.name for part in spec.parts}
    ends: dict[str, int] = {}
    blocked_by: dict[str, str | None] = {}
    for part in spec.parts:
        before = [makers[name] for name in part.inputs if name in makers]
        blocked_by[part.name] = max(before, key=lambda name: ends[name]) if before else None
        ends[part.name] = macs[part.name] + max((ends[name] for name in before), default=0)
    last = max(ends, key=lambda name: ends[name])
    total = sum(macs.values())
    path, share = ends[last] / total, 1 / devices
    return Bound(
        ratio=max(path, share),
        by="path" if path >= share else "devices",
        parts=_walk_back(last, blocked_by),
    )


def copied_bytes(placement: Placement, spec: ModelSpec, size: InputSize) -> int:
    """Bytes that cross between devices for one image of the largest size, in float32."""
    tensors = spec.tensors
    return sum(tensors[name].nbytes(1, *size.high) for name, _, _ in placement.crossings)


def _next(
    waiting: list[Segment],
    needs: Mapping[str, tuple[str, ...]],
    ends: Mapping[str, int],
    free: Mapping[int, int],
    behind: Mapping[str, int],
) -> tuple[int, Segment]:
    """What starts first, and when; of several, the one with most arithmetic behind it."""
    starts = [
        (
            max([free[segment.device], *(ends[name] for name in needs[segment.name])]),
            -behind[segment.name],
            index,
        )
        for index, segment in enumerate(waiting)
        if all(name in ends for name in needs[segment.name])
    ]
    start, _, index = min(starts)
    return start, waiting[index]


def _walk_back(last: str, blocked_by: Mapping[str, str | None]) -> tuple[str, ...]:
    path = [last]
    while (before := blocked_by[path[-1]]) is not None:
        path.append(before)
    return tuple(reversed(path))
