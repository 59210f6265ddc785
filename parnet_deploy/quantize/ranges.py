"""From a histogram of a tensor's values to the range that eight bits shall span.

minmax      everything that was seen
percentile  all but a share at each end
entropy     the threshold whose 8-bit form keeps most of the distribution (least Kullback-Leibler
            divergence)
mse         the threshold with the least squared error: of rounding within, of clipping beyond

Entropy and mse look for one threshold T on the absolute value and give [max(low, -T),
min(high, T)]: most tensors of the network lean to one side, and stay so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import SpecError

BINS = 2048
LEVELS = 128  # of 8 bits on one side of zero
THRESHOLDS = 128  # how many are tried
MAX_CLIPPED = 0.01  # of the values, by a threshold that is looked for

Method = Literal["minmax", "percentile", "entropy", "mse"]
METHODS: tuple[Method, ...] = ("minmax", "percentile", "entropy", "mse")
DEFAULT_PERCENTILE = 99.99

Counts = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Histogram:
    """Counts of values in equal bins from ``low`` to ``high``."""

    low: float
    high: float
    counts: Counts

    @classmethod
    def empty(cls, low: float, high: float) -> Histogram:
        """No values yet, in ``BINS`` bins."""
        return cls(low=low, high=high, counts=np.zeros(BINS, np.int64))

    @property
    def width(self) -> float:
        """Width of a bin; 0 if all values are the same."""
        return (self.high - self.low) / len(self.counts)

    @property
    def centres(self) -> Floats:
        """The middle of each bin."""
        index = np.arange(len(self.counts), dtype=np.float64)
        return np.asarray(self.low + (index + 0.5) * self.width, np.float64)

    def add(self, values: NDArray[np.float32]) -> None:
        """Count values, in place; what lies outside goes into the last bin of its side."""
        bins = len(self.counts)
        if self.width <= 0:
            self.counts[0] += values.size
            return
        index = ((values.ravel() - np.float32(self.low)) * np.float32(1 / self.width)).astype(int)
        self.counts[:] += np.bincount(np.clip(index, 0, bins - 1), minlength=bins)


def choose_range(
    histogram: Histogram, method: Method, percentile: float = DEFAULT_PERCENTILE
) -> tuple[float, float]:
    """The range to quantize, zero included.

    Raises:
        SpecError: There is no such method, or the percentile is none.
    """
    if method not in METHODS:
        raise SpecError(f"method: got {method!r}, expected one of {', '.join(METHODS)}.")
    if not 50 < percentile <= 100:
        raise SpecError(f"percentile: got {percentile}, expected more than 50, at most 100.")
    low, high = histogram.low, histogram.high
    if histogram.width > 0 and histogram.counts.any():
        if method == "percentile":
            low, high = _percentile(histogram, percentile)
        elif method != "minmax":
            distance = _magnitudes(histogram)
            find = _entropy if method == "entropy" else _mse
            threshold = find(*distance)
            low, high = max(low, -threshold), min(high, threshold)
    return min(low, 0.0), max(high, 0.0)


def _percentile(histogram: Histogram, percentile: float) -> tuple[float, float]:
    share = np.cumsum(histogram.counts) / histogram.counts.sum()
    tail = 1 - percentile / 100
    first = int(np.searchsorted(share, tail, side="right"))
    last = int(np.searchsorted(share, 1 - tail, side="left"))
    low = histogram.low + first * histogram.width
    high = histogram.low + (min(last, len(share) - 1) + 1) * histogram.width
    return low, min(high, histogram.high)


def _magnitudes(histogram: Histogram) -> tuple[Floats, float]:
    """Counts of absolute values in ``BINS`` bins from 0 to the largest, and the bins' width."""
    largest = max(abs(histogram.low), abs(histogram.high))
    width = largest / BINS
    index = np.clip((np.abs(histogram.centres) / width).astype(int), 0, BINS - 1)
    weights = histogram.counts.astype(np.float64)
    return np.bincount(index, weights=weights, minlength=BINS).astype(np.float64), width


def _candidates(counts: Floats) -> NDArray[np.int64]:
    """Thresholds to try, in bins."""
    share = np.cumsum(counts) / counts.sum()
    least = max(LEVELS, int(np.searchsorted(share, 1 - MAX_CLIPPED)) + 1)
    return np.linspace(min(least, BINS), BINS, THRESHOLDS).astype(np.int64)


def _mse(counts: Floats, width: float) -> float:
    """Expected squared error of each threshold on the histogram; the least wins."""
    centres = (np.arange(BINS) + 0.5) * width
    best, least = BINS * width, np.inf
    for bins in _candidates(counts):
        threshold = float(bins) * width
        step = threshold / (LEVELS - 1)
        kept = np.minimum(np.round(centres / step), LEVELS - 1) * step
        error = float(counts @ (centres - kept) ** 2)
        if error < least:
            best, least = threshold, error
    return best


def _entropy(counts: Floats, width: float) -> float:
    """Threshold of least divergence between the clipped distribution and its 8-bit form.

    The first bin is left out of the comparison: exact zeros are kept exactly by any range.
    """
    seen = counts.copy()
    seen[0] = 0
    best, least = BINS * width, np.inf
    if not seen.any():
        return best
    for bins in _candidates(counts):
        inside = seen[:bins].copy()
        inside[-1] += seen[bins:].sum()  # what is clipped lands on the threshold
        divergence = _divergence(inside, _requantized(seen[:bins]))
        if divergence < least:
            best, least = float(bins) * width, divergence
    return best


def _requantized(counts: Floats) -> Floats:
    """The distribution after 8 bits: within a level every bin that had values has the mean."""
    edges = np.linspace(0, len(counts), LEVELS + 1).astype(int)
    filled = counts > 0
    sums = np.add.reduceat(counts, edges[:-1])
    bins = np.add.reduceat(filled.astype(np.float64), edges[:-1])
    means = np.divide(sums, bins, out=np.zeros_like(sums), where=bins > 0)
    spread: Floats = np.repeat(means, np.diff(edges)) * filled
    return spread


def _divergence(p: Floats, q: Floats) -> float:
    """Kullback-Leibler divergence; where q has nothing that p has, a small share stands for it."""
    if not q.any():
        return float("inf")
    p, q = p / p.sum(), q / q.sum()
    there = p > 0
    floor = 1e-9
    return float(np.sum(p[there] * np.log(p[there] / np.maximum(q[there], floor))))
