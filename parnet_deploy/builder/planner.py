"""Which of the built candidates is fastest here: measured alternated, explained in a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..measure import Latency, alternate, compare_latency
from ..plan import Plan
from ..runtime.session import Runtime
from ..spec import ModelSpec
from ..steps import Progress
from .candidates import Candidate

MEASURE_MS = 3000.0  # how long each candidate is measured, roughly
ROUNDS = (20, 300)
CLEARLY_FASTER = 0.98  # what a more complicated candidate must reach, beyond noise
SIMULATED = "simulated devices: nothing was measured"


@dataclass(frozen=True, kw_only=True)
class Built:
    """A candidate's proved engines in a folder."""

    candidate: Candidate
    plan: Plan
    folder: Path

    @property
    def label(self) -> str:
        """The candidate's, with the precision where that is not float32."""
        precision = "" if self.plan.precision == "fp32" else f", {self.plan.precision}"
        return f"{self.candidate.label}{precision}"


def engine_files(plan: Plan, folder: Path) -> dict[str, Path]:
    """Engine file of each segment."""
    return {segment: folder / file for segment, file in plan.engines.items()}


def choose_fastest(
    spec: ModelSpec, built: Sequence[Built], image: NDArray[np.float32], on_stage: Progress
) -> tuple[Built, Mapping[str, Any]]:
    """Measure the candidates alternated and take the fastest; the simplest if it is a draw.

    Args:
        spec: The network.
        built: Candidates, the simplest first.
        image: What to run, (1, C, H, W).
        on_stage: Called with what is being done, for progress.

    Returns: The winner, and what goes into its plan as ``measured``.
    """
    if built[0].plan.backend == "fake":
        return built[0], {"note": SIMULATED}
    on_stage("measuring " + "; ".join(item.label for item in built))
    latencies = _measure(spec, built, image)
    best = pick(latencies)
    table = [_row(item, latencies, best) for item in built]
    winner = next(item for item in built if item.label == best)
    return winner, {"median_ms": latencies[best].median_ms, "candidates": table}


def pick(latencies: Mapping[str, Latency]) -> str:
    """The first arm, unless a later one is faster by more than noise, and so on."""
    best, *others = latencies
    for other in others:
        ratio = compare_latency(latencies[other], latencies[best])
        if ratio.median < CLEARLY_FASTER and ratio.high < 1:
            best = other
    return best


def _row(item: Built, latencies: Mapping[str, Latency], best: str) -> dict[str, Any]:
    label = item.label
    first = next(iter(latencies.values()))
    return {
        "candidate": label,
        "placement": item.candidate.placement.name,
        "precision": item.plan.precision,
        "threads": item.candidate.threads,
        "median_ms": latencies[label].median_ms,
        "p99_ms": latencies[label].quantile_ms(0.99),
        "ratio": compare_latency(latencies[label], first).to_json(),
        "chosen": label == best,
    }


def _measure(
    spec: ModelSpec, built: Sequence[Built], image: NDArray[np.float32]
) -> dict[str, Latency]:
    with ExitStack() as stack:
        arms: dict[str, Callable[[], object]] = {}
        for item in built:
            files = engine_files(item.plan, item.folder)
            runtime = stack.enter_context(Runtime.from_plan(spec, item.plan, files))
            arms[item.label] = partial(runtime, image)
        trial = alternate(arms, rounds=3)
        slowest = max(latency.median_ms for latency in trial.values())
        rounds = int(min(max(MEASURE_MS / slowest, ROUNDS[0]), ROUNDS[1]))
        return alternate(arms, rounds=rounds)
