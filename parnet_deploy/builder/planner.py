"""Which of the built candidates is fastest here: measured alternated, explained in a table."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BackendError
from ..input_size import InputSize
from ..measure import Latency, alternate, compare_latency
from ..plan import Plan
from ..runtime.session import Runtime
from ..spec import ModelSpec
from ..steps import Progress
from .candidates import Candidate
from .predict import Prediction, best_possible, predict

MEASURE_MS = 3000.0  # how long each candidate is measured, roughly
ROUNDS = (20, 300)
CLEARLY_FASTER = 0.98  # what a more complicated candidate must reach, beyond noise
SIMULATED = "simulated devices: nothing was measured"
BY_ARITHMETIC = f"{SIMULATED}; the placement is the best by arithmetic alone"


@dataclass(frozen=True, kw_only=True)
class Built:
    """A candidate's proved engines in a folder."""

    candidate: Candidate
    plan: Plan
    folder: Path


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """A candidate that could not be built, proved or run, and why."""

    candidate: Candidate
    error: Exception


def engine_files(plan: Plan, folder: Path) -> dict[str, Path]:
    """Engine file of each segment."""
    return {segment: folder / file for segment, file in plan.engines.items()}


Measure = Callable[[ModelSpec, Sequence[Built], Progress], tuple[dict[str, Latency], list[LeftOut]]]
"""Times candidates alternated: the latencies of those that run, by label, and the others."""


def choose_fastest(
    spec: ModelSpec,
    built: Sequence[Built],
    measure: Measure,
    on_stage: Progress,
    left_out: Sequence[LeftOut] = (),
) -> tuple[Built, Mapping[str, Any]]:
    """Measure the candidates alternated and take the fastest; the simplest if it is a draw.

    Args:
        spec: The network.
        built: Candidates, the simplest first, one engine before several.
        measure: How: ``measure_together`` or in fresh processes.
        on_stage: Called with what is being done, for progress.
        left_out: Candidates that stand in the table with the reason.

    Returns: The winner, and what goes into its plan as ``measured``.

    Raises:
        BackendError: None of them runs.
    """
    labels = [item.candidate.label for item in built]
    on_stage(f"measuring {'; '.join(labels) if len(labels) < 4 else f'{len(labels)} candidates'}")
    latencies, failed = measure(spec, built, on_stage)
    kept = [item for item in built if item.candidate.label in latencies]
    if not kept:
        raise failed[0].error
    best = pick(latencies, {item.candidate.label for item in kept if item.candidate.single})
    size = built[0].plan.input_size
    table = [
        {
            **_describe(item.candidate, spec, size),
            **_figures(latencies[item.candidate.label], next(iter(latencies.values()))),
            "chosen": item.candidate.label == best,
        }
        for item in kept
    ]
    table += [_reason(item, spec, size) for item in (*left_out, *failed)]
    winner = next(item for item in kept if item.candidate.label == best)
    candidates = [item.candidate for item in built] + [item.candidate for item in left_out]
    return winner, {
        "median_ms": latencies[best].median_ms,
        "candidates": table,
        **_bound(candidates, spec, size),
    }


def choose_predicted(
    spec: ModelSpec, candidates: Sequence[Candidate], size: InputSize
) -> tuple[Candidate, Mapping[str, Any]]:
    """Take the candidate with the best prediction, the simplest of equals: nothing is measured.

    Returns: The winner, and what goes into its plan as ``measured``; ``note`` says it in words.
    """
    ratios = [predict(candidate.placement, spec, size).ratio for candidate in candidates]
    winner = candidates[ratios.index(min(ratios))]
    table = [{**_describe(c, spec, size), "chosen": c is winner} for c in candidates]
    note = BY_ARITHMETIC if len(candidates) > 1 else SIMULATED
    return winner, {"note": note, "candidates": table, **_bound(candidates, spec, size)}


def pick(latencies: Mapping[str, Latency], single: Collection[str] = ()) -> str:
    """The first arm, unless a later one is faster by more than noise, and so on.

    An arm that is slower beyond noise than the best single engine is never taken, even if it is
    faster than an arm that is faster than that one: ratios of medians are not transitive.

    Args:
        latencies: Arms of one run, the simplest first, single engines before others.
        single: Which of them are one engine; the first arm counts as one.
    """
    best, *others = latencies
    engine = best
    for other in others:
        ratio = compare_latency(latencies[other], latencies[best])
        if ratio.median >= CLEARLY_FASTER or ratio.high >= 1:
            continue
        if compare_latency(latencies[other], latencies[engine]).low > 1:
            continue
        best = other
        if other in single:
            engine = other
    return best


def _describe(candidate: Candidate, spec: ModelSpec, size: InputSize) -> dict[str, Any]:
    """What the candidate is and what arithmetic says of it. The model knows GPUs, no cores."""
    found: Prediction | None = None
    if not candidate.on_cpu:
        found = predict(candidate.placement, spec, size)
    return {**candidate.to_json(), "predicted": None if found is None else found.to_json()}


def _figures(latency: Latency, first: Latency) -> dict[str, Any]:
    return {
        "median_ms": latency.median_ms,
        "p99_ms": latency.quantile_ms(0.99),
        "ratio": compare_latency(latency, first).to_json(),
    }


def _reason(item: LeftOut, spec: ModelSpec, size: InputSize) -> dict[str, Any]:
    about = _describe(item.candidate, spec, size)
    return {**about, "left_out": str(item.error), "chosen": False}


def _bound(candidates: Sequence[Candidate], spec: ModelSpec, size: InputSize) -> dict[str, Any]:
    """What no placement on the devices of the candidates can beat, by arithmetic."""
    devices = {d for c in candidates if not c.on_cpu for d in c.placement.devices}
    return {"bound": best_possible(spec, size, len(devices)).to_json()} if devices else {}


def measure_together(
    spec: ModelSpec, built: Sequence[Built], on_stage: Progress, *, image: NDArray[np.float32]
) -> tuple[dict[str, Latency], list[LeftOut]]:
    """Latencies of the candidates that run, all of them open side by side in this process.

    Args:
        spec: The network.
        built: Candidates of one backend.
        on_stage: Not called.
        image: What to run, (1, C, H, W).
    """
    failed = []
    with ExitStack() as stack:
        arms: dict[str, Callable[[], object]] = {}
        for item in built:
            files = engine_files(item.plan, item.folder)
            try:
                runtime = stack.enter_context(Runtime.from_plan(spec, item.plan, files))
                runtime(image)
            except BackendError as error:  # it fits alone, but not beside the others
                failed.append(LeftOut(candidate=item.candidate, error=error))
                continue
            arms[item.candidate.label] = partial(runtime, image)
        if not arms:
            return {}, failed
        trial = alternate(arms, rounds=3)
        slowest = max(latency.median_ms for latency in trial.values())
        rounds = int(min(max(MEASURE_MS / slowest, ROUNDS[0]), ROUNDS[1]))
        return alternate(arms, rounds=rounds), failed
