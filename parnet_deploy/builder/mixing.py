"""Which segment would run faster on another backend than its neighbours: candidates for a mix.

Every backend runs the network cut into engines, each in a process of its own and traced. A mix
takes for each engine the backend that was fastest there. Whether the mix as a whole is faster only
its own measurement tells: caches, threads and borders of one engine are another's business too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np

from ..contest.contest import Contest
from ..placement import chain
from ..plan import MIXED
from ..spec import ModelSpec
from ..steps import Progress
from .built_arm import arm_of
from .candidates import Candidate
from .make import Workshop
from .planner import Built

CLEARLY_SHORTER = 0.95  # what the fastest backend of a segment must reach to change the backend

Times = Mapping[str, Mapping[str, float]]
"""Backend -> segment -> milliseconds."""


def propose_mixes(
    workshop: Workshop, built: Sequence[Built], on_stage: Progress
) -> list[Candidate]:
    """Mixed candidates worth building, for each precision that several backends have.

    Args:
        workshop: Makes the engines that are traced.
        built: What was built; backends of other placements than ``streams`` count too.
        on_stage: Called with what is being done.
    """
    found = []
    for precision in dict.fromkeys(item.candidate.precision for item in built):
        same = [item for item in built if item.candidate.precision == precision]
        backends = list(dict.fromkeys(str(item.candidate.backend) for item in same))
        if len(backends) < 2:
            continue
        spec = workshop.spec
        alone = [[part.name] for part in spec.parts]
        threads = workshop.options.threads
        cut = [
            Candidate(
                placement=chain(spec, alone), threads=threads, precision=precision, backend=backend
            )
            for backend in backends
        ]
        parts = _trace(workshop, workshop.try_all(cut)[0], on_stage)
        side_by_side = [item for item in same if item.candidate.placement.name == "streams"]
        lanes = _trace(workshop, side_by_side, on_stage)
        found += mix_chain(spec, parts, precision, threads)
        found += mix_lanes(side_by_side, lanes)
    return found


def mix_chain(
    spec: ModelSpec, times: Times, precision: str, threads: int | None
) -> list[Candidate]:
    """Engines one after the other: neighbours on the same backend become one engine."""
    homes = _fastest(times, [part.name for part in spec.parts])
    if len(set(homes.values())) < 2:
        return []
    runs = [list(group) for _, group in groupby(homes, key=lambda part: homes[part])]
    placement = chain(spec, runs)
    names = [segment.name for segment in placement.segments]
    backends = tuple(zip(names, (homes[run[0]] for run in runs), strict=True))
    return [
        Candidate(
            placement=placement,
            threads=threads,
            precision=precision,
            backend=MIXED,
            backends=backends,
        )
    ]


def mix_lanes(streams: Sequence[Built], times: Times) -> list[Candidate]:
    """An engine per stream side by side, each on its fastest backend."""
    if not streams:
        return []
    first = streams[0].candidate
    homes = _fastest(times, [segment.name for segment in first.placement.segments])
    if len(set(homes.values())) < 2:
        return []
    return [
        Candidate(
            placement=first.placement,
            threads=first.threads,
            precision=first.precision,
            backend=MIXED,
            backends=tuple(homes.items()),
        )
    ]


def _fastest(times: Times, segments: Iterable[str]) -> dict[str, str]:
    """Segment -> backend: the one that is best over all, unless another is clearly faster there."""
    if not times:
        return {}
    totals = {backend: sum(spent.values()) for backend, spent in times.items()}
    usual = min(totals, key=lambda backend: totals[backend])
    homes = {}
    for segment in segments:
        best = min(times, key=lambda backend: times[backend][segment])
        clear = times[best][segment] < CLEARLY_SHORTER * times[usual][segment]
        homes[segment] = best if clear else usual
    return homes


def _trace(
    workshop: Workshop, built: Sequence[Built], on_stage: Progress
) -> dict[str, dict[str, float]]:
    """Milliseconds of each engine on an image of zeros, by backend; one process after the other."""
    height, width = workshop.input_size.low
    image = np.zeros((1, workshop.spec.in_channels, height, width), np.float32)
    found: dict[str, dict[str, float]] = {}
    for item in built:
        arm = arm_of(item, workshop.spec, "open_traced", shape=list(image.shape))
        with Contest([arm], image, None, required=(), on_stage=on_stage) as contest:
            for entrant in contest.entrants.values():
                times: dict[str, Any] = entrant.facts["segment_ms"]
                found[str(item.candidate.backend)] = times
    return found
