"""What a change between two runs means.

It counts only if it is beyond two kinds of noise: that within the runs, which the bootstrap tells,
and that between runs, which no single run shows and ``MARGIN`` allows for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from .result import Interval
from .statistics import interval

Verdict = Literal["regression", "faster", "unchanged", "too noisy to tell"]

MIN_SAMPLES = 20  # of each run, for a verdict
MARGIN = 0.05
"""Between two runs of the same on one machine; ``benchmarks/regression.py`` measures what it is."""
MARGIN_PACED = 0.08
"""The same for calls with pauses between them, in which caches cool and clocks fall."""
MARGIN_BY_TIME = 0.15
"""The same without a yardstick on a CPU, whose clocks and neighbours then count in full."""
RESOLVED = 0.10
"""A run that could hide a slowdown of this size is too noisy to call anything unchanged."""
FOREIGN_SHARE = 0.15
"""Of our cores, used by others on average: more of it changes even ratios."""
MARGIN_DISTURBED = 0.35
"""What a change must be beyond then; nothing is called unchanged or faster."""


def change_between(
    old: Sequence[float], new: Sequence[float], blocks: tuple[int, int] | None = None
) -> Interval:
    """How the median changed between two runs: above 1 it is larger now.

    The intervals of both runs are joined as those of independent figures are (the method of
    variance estimates recovery, on logarithms).

    Args:
        old: Milliseconds of ours, or better its ratios to the yardstick, round by round: what
            slowed both calls of a round is no part of them.
        new: The same now.
        blocks: For the bootstrap of each run, see ``statistics.interval``.
    """
    then, now = (
        interval(samples, block=block)
        for samples, block in zip((old, new), blocks or (None, None), strict=True)
    )
    value = math.log(now["value"] / then["value"])
    below, above = _reach(now, then), _reach(then, now)
    low, middle, high = (math.exp(x) for x in (value - below, value, value + above))
    return Interval(value=middle, low=low, high=high)


def judge(change: Interval, margin: float, *, disturbed: bool) -> Verdict:
    """What a change means.

    Args:
        change: See ``change_between``.
        margin: What runs of the same differ by.
        disturbed: Others used the cores in one of the runs.
    """
    slower = change["low"] > 1
    if disturbed:
        certain = slower and change["value"] > 1 + max(MARGIN_DISTURBED, margin)
        return "regression" if certain else "too noisy to tell"
    if slower and change["value"] > 1 + margin:
        return "regression"
    if change["high"] < 1 and change["value"] < 1 / (1 + margin):
        return "faster"
    return "too noisy to tell" if change["high"] > 1 + max(RESOLVED, margin) else "unchanged"


def _reach(here: Interval, there: Interval) -> float:
    """How far below its value ``here / there`` reaches, in logarithms."""
    return math.hypot(
        math.log(here["value"] / here["low"]), math.log(there["high"] / there["value"])
    )
