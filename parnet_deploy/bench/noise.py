"""Why the figures of a run should be taken with care, in words. Nothing is hidden or corrected."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .environment import during
from .result import Noise

FOREIGN_CORES = 0.1
STEAL_SHARE = 0.01
SPREAD = 1.5  # p90 over p50
DRIFT = 0.05  # between the medians of the first and the last third
_LEAST = 20  # samples, or their shape says nothing
_VALLEY = 0.5  # of the lower of two peaks: how deep it must be between them
_APART = 1.1  # the slower peak over the faster
_SIDE_SHARE = 0.15  # of the samples on either side


def noise(
    before: Mapping[str, Any], after: Mapping[str, Any], samples: Sequence[float]
) -> list[Noise]:
    """What disturbed a run, and what its samples look like.

    Args:
        before: The environment when timing began, see ``environment.capture``.
        after: The environment when it ended.
        samples: Milliseconds of ours, in the order in which they were taken.
    """
    return [*_machine_noise(before, after), *sample_noise(samples)]


def sample_noise(samples: Sequence[float]) -> Iterator[Noise]:
    """What the samples of ours alone tell: spread, drift, two speeds."""
    values = np.asarray(samples, dtype=np.float64)
    if len(values) < _LEAST:
        yield Noise(name="few", detail=f"only {len(values)} samples")
        return
    p50, p90 = np.quantile(values, (0.5, 0.9))
    if p90 / p50 > SPREAD:
        yield Noise(name="spread", detail=f"p90 is {p90 / p50:.1f} times the median")
    first, last = (float(np.median(part)) for part in (values[: len(values) // 3], _last(values)))
    if abs(last / first - 1) > DRIFT:
        how = "slower" if last > first else "faster"
        share = abs(last / first - 1)
        detail = f"the last third was {share:.0%} {how} than the first"
        yield Noise(name="drift", detail=detail)
    peaks = two_speeds(values)
    if peaks is not None:
        detail = f"calls have two speeds, about {peaks[0]:.3g} and {peaks[1]:.3g} ms"
        yield Noise(name="bimodal", detail=detail)


def two_speeds(values: NDArray[np.float64]) -> tuple[float, float] | None:
    """The two peaks of the distribution, if it has two that are clearly apart.

    Counted in 20 bins of equal width in the logarithm, smoothed, from the 2nd to the 98th
    percentile: a tail is no second speed.
    """
    low, high = np.quantile(np.log(values), (0.02, 0.98))
    if high - low < np.log(_APART):
        return None
    counts, edges = np.histogram(np.log(values), bins=20, range=(low, high))
    smooth = np.convolve(counts, (0.25, 0.5, 0.25), mode="same")
    tops = [
        i for i, here in enumerate(smooth) if here and here == smooth[max(0, i - 2) : i + 3].max()
    ]
    middles = np.exp((edges[:-1] + edges[1:]) / 2)
    best, found = 0.0, None
    for left, right in pairwise(tops):
        valley = left + int(np.argmin(smooth[left : right + 1]))
        lower = min(smooth[left], smooth[right])
        share = min(
            np.mean(np.log(values) < edges[valley]), np.mean(np.log(values) > edges[valley])
        )
        apart = middles[right] / middles[left] >= _APART
        if apart and smooth[valley] <= _VALLEY * lower and share >= max(_SIDE_SHARE, best):
            best, found = float(share), (float(middles[left]), float(middles[right]))
    return found


def _machine_noise(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Noise]:
    """What the machine did beside us."""
    cores, found = before["cores_usable"], during(before, after)
    load = before["load_average"]
    if load and load[0] > cores:
        detail = f"load average {load[0]} on {cores} cores before timing"
        yield Noise(name="load", detail=detail)
    foreign = found["foreign_cores"]
    if foreign is not None and foreign > max(FOREIGN_CORES, len(before["affinity"]) - cores):
        yield Noise(name="foreign", detail=f"other programs used {foreign:.1f} cores meanwhile")
    steal = found["steal_share"]
    if steal is not None and steal > STEAL_SHARE:
        detail = f"the hypervisor gave {steal:.0%} of our cores' time to other guests"
        yield Noise(name="steal", detail=detail)
    if found["throttled_periods"]:
        detail = f"the cgroup's CPU quota stopped us {found['throttled_periods']:.0f} times"
        if found["throttled_s"]:
            detail += f", for {found['throttled_s']:.2g} s"
        yield Noise(name="throttled", detail=detail)
    governor = before["governor"]
    if governor is not None and governor != "performance":
        yield Noise(name="governor", detail=f"the governor is {governor}: clocks follow the load")
    for number, state in enumerate(found["gpu_states"]):
        if state["throttled"]:
            reasons = ", ".join(state["throttled"])
            yield Noise(name="gpu", detail=f"GPU {number} is slowed down: {reasons}")


def _last(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return values[-(len(values) // 3) :]
