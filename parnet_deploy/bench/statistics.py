"""Figures of raw samples, with intervals that know that samples in a row resemble each other.

Nothing is clipped. Intervals are the 95 % percentile intervals of a moving-block bootstrap: whole
stretches of the run are drawn, so that a slow spell of the machine widens them as it should. A
block that reaches the end goes on at the beginning, or the samples at both ends would count less.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .result import Interval

QUANTILES: Mapping[str, float] = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999}
CONFIDENCE = 0.95
_BEYOND = 2  # samples expected beyond a quantile, or it is not told
_BOOTSTRAPS = 1000
_AT_ONCE = 4_000_000  # numbers held in memory

Values = NDArray[np.float64]
Statistic = Callable[[Values], Any]
"""Maps samples (..., N) to figures (...)."""


def samples_needed(name: str) -> int:
    """How many samples there must be before a quantile is told: 20 for p90, 200 for p99.

    Two are then expected beyond it. The median is told of any.
    """
    quantile = QUANTILES[name]
    return 1 if quantile <= 0.5 else math.ceil(_BEYOND / (1 - quantile) - 1e-6)


def quantiles(samples: Sequence[float], *, block: int | None = None) -> dict[str, Interval | None]:
    """p50, p90, p99 and p99.9; None where there are too few samples to tell.

    Args:
        samples: In the order in which they were taken.
        block: See ``interval``.
    """
    told = [name for name in QUANTILES if len(samples) >= samples_needed(name)]
    wanted = [QUANTILES[name] for name in told]
    values = np.asarray(samples, dtype=np.float64)
    found = _intervals([values], lambda drawn: np.quantile(drawn[0], wanted, axis=-1), block)
    return dict.fromkeys(QUANTILES) | dict(zip(told, found, strict=True))


def interval(
    samples: Sequence[float],
    statistic: Statistic = lambda values: np.median(values, axis=-1),
    *,
    block: int | None = None,
) -> Interval:
    """A figure with its interval.

    Args:
        samples: In the order in which they were taken.
        statistic: What to compute, over the last axis; the median if none is given.
        block: Samples that are drawn together; None: as many as the samples ask for, see
            ``block_length``.
    """
    values = np.asarray(samples, dtype=np.float64)
    (found,) = _intervals([values], lambda drawn: [statistic(drawn[0])], block)
    return found


def ratio(arm: Sequence[float], ours: Sequence[float], *, block: int | None = None) -> Interval:
    """The median of an arm in units of the median of ours.

    Samples i of both are of the same round and are drawn together: what slowed both cancels out.

    Args:
        arm: In the order in which they were taken.
        ours: As many.
        block: See ``interval``.
    """
    pair = [np.asarray(samples, dtype=np.float64) for samples in (arm, ours)]

    def divide(drawn: Sequence[Values]) -> Sequence[Values]:
        above, below = (np.median(values, axis=-1) for values in drawn)
        return [above / below]

    (found,) = _intervals(pair, divide, block)
    return found


def block_length(samples: Sequence[float] | Values) -> int:
    """How many samples in a row to draw together.

    Twice the lag at which the ranks of the samples no longer resemble each other, but not less than
    the cube root of their number, nor more than a quarter of it. Ranks, for a single outlier would
    hide everything else.
    """
    count = len(samples)
    ranks = np.unique(np.asarray(samples), return_inverse=True)[1].astype(np.float64)
    ranks -= ranks.mean()
    spectrum = np.abs(np.fft.rfft(ranks, 2 * count)) ** 2
    covariance = np.fft.irfft(spectrum)[:count]
    alike = np.abs(covariance) >= covariance[0] * 2 / math.sqrt(count)
    lag = int(np.argmin(alike)) if not alike.all() else count
    return max(1, min(max(2 * lag, math.ceil(math.pow(count, 1 / 3))), count // 4))


def _intervals(
    series: Sequence[Values],
    statistic: Callable[[Sequence[Values]], Sequence[Any] | Values],
    block: int | None,
) -> list[Interval]:
    """Figures of series of the same length, which are drawn together."""
    if block is None:
        block = max(map(block_length, series))
    values = np.asarray(statistic(series))  # (F,)
    rounds = [
        np.asarray(statistic([samples[picks] for samples in series]))
        for picks in _picks(len(series[0]), block)
    ]  # each (F, B)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(np.concatenate(rounds, axis=1), (tail, 1 - tail), axis=1)
    return [
        Interval(value=float(v), low=float(min(a, v)), high=float(max(b, v)))
        for v, a, b in zip(values, low, high, strict=True)
    ]


def _picks(count: int, block: int) -> Iterator[NDArray[np.int64]]:
    """Indices (B, count) of the bootstrap's draws, the same every time, in portions."""
    generator = np.random.default_rng(0)
    portion = max(1, _AT_ONCE // count)
    for done in range(0, _BOOTSTRAPS, portion):
        draws = min(portion, _BOOTSTRAPS - done)
        starts = generator.integers(0, count, (draws, math.ceil(count / block), 1))
        picks = (starts + np.arange(block)) % count
        yield picks.reshape(draws, -1)[:, :count]
