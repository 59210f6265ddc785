"""What a change between two runs means.

It counts only if it is beyond two kinds of noise: that within the runs, which the bootstrap tells,
and that between runs, which no single run shows and ``MARGIN`` allows for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from .result import Interval
from .statistics import interval, ratio

Verdict = Literal["regression", "faster", "unchanged", "too noisy to tell"]

MARGIN = 0.05
"""Between two runs of the same on one machine; found with ``benchmarks/regression.py``."""
MARGIN_BY_TIME = 0.15
"""The same without a yardstick on a CPU, whose clocks and neighbours then count in full."""
RESOLVED = 0.10
"""A run that could hide a slowdown of this size is too noisy to call anything unchanged."""
FOREIGN_SHARE = 0.15
"""Of our cores, used by others on average: more of it changes even ratios."""
MARGIN_DISTURBED = 0.35
"""What a change must be beyond then; nothing is called unchanged or faster."""


def change_between(
    old: Sequence[Sequence[float]], new: Sequence[Sequence[float]], blocks: tuple[int | None, ...]
) -> Interval:
    """How ours, or ours in units of the yardstick, changed: above 1 it takes longer now.

    The intervals of both runs are joined as those of independent figures are (the method of
    variance estimates recovery, on logarithms).

    Args:
        old: Samples of ours then, and of the yardstick if there is one.
        new: The same now.
        blocks: For the bootstrap, see ``statistics.interval``, of each run.
    """
    then, now = (
        ratio(series[0], series[1], block=block)
        if len(series) == 2
        else interval(series[0], block=block)
        for series, block in zip((old, new), blocks, strict=True)
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
