"""Time callables honestly: alternated in one run, warm-up apart, raw samples kept.

Never compare absolute times of different runs: cores are shared and clocks change. What is
compared is the ratio of two arms within a round, which sees the same machine.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

QUANTILES = (0.5, 0.9, 0.99)
_BOOTSTRAPS = 1000


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One way to run the network: ``run`` takes images (N, C, H, W) and returns logits (N, K).

    ``load_ms`` is how long it took to get ready, where that means anything; ``note`` says for
    people what it is.
    """

    name: str
    run: Callable[[NDArray[np.float32]], NDArray[np.float32]]
    load_ms: float | None
    note: str


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Samples of one arm in milliseconds, in the order in which they were taken."""

    name: str
    samples_ms: tuple[float, ...]
    first_ms: float

    def quantile_ms(self, q: float) -> float:
        """Quantile of the raw samples; nothing is clipped."""
        return float(np.quantile(self.samples_ms, q))

    @property
    def median_ms(self) -> float:
        """Median of the raw samples."""
        return self.quantile_ms(0.5)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types, raw samples included."""
        names = {f"p{round(100 * q)}_ms": self.quantile_ms(q) for q in QUANTILES}
        return {
            "name": self.name,
            **names,
            "samples": len(self.samples_ms),
            "first_ms": self.first_ms,
            "samples_ms": list(self.samples_ms),
        }


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """Median of the paired ratios of two arms with a 95 % bootstrap interval."""

    median: float
    low: float
    high: float

    def to_json(self) -> dict[str, float]:
        """Plain JSON types."""
        return {"median": self.median, "low": self.low, "high": self.high}


def alternate(
    arms: Mapping[str, Callable[[], object]],
    *,
    rounds: int,
    warm_up: int = 3,
    on_round: Callable[[int], None] = lambda done: None,
) -> dict[str, Latency]:
    """Run every arm once per round, in an order that is reversed from round to round.

    Args:
        arms: What to time; each call does one inference and returns when its answer is there.
        rounds: Timed rounds.
        warm_up: Untimed rounds before; the first call of each arm is reported apart.
        on_round: Called after each timed round, for progress.
    """
    order = list(arms)
    first = {name: time_ms(arms[name]) for name in order}
    for _ in range(warm_up):
        for name in order:
            arms[name]()
    samples: dict[str, list[float]] = {name: [] for name in order}
    for done in range(rounds):
        for name in order if done % 2 == 0 else reversed(order):
            samples[name].append(time_ms(arms[name]))
        on_round(done + 1)
    return {
        name: Latency(name=name, samples_ms=tuple(samples[name]), first_ms=first[name])
        for name in order
    }


def compare_latency(arm: Latency, base: Latency) -> Ratio:
    """How long ``arm`` takes in units of ``base``; both from the same call of ``alternate``."""
    paired = np.asarray(arm.samples_ms) / np.asarray(base.samples_ms)
    generator = np.random.default_rng(0)
    picks = generator.integers(0, len(paired), (_BOOTSTRAPS, len(paired)))
    medians = np.median(paired[picks], axis=1)
    low, high = np.quantile(medians, (0.025, 0.975))
    return Ratio(median=float(np.median(paired)), low=float(low), high=float(high))


def time_ms(call: Callable[[], object]) -> float:
    """Milliseconds of one call."""
    start = time.perf_counter_ns()
    call()
    return (time.perf_counter_ns() - start) / 1e6
