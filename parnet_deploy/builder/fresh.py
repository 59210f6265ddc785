"""Measure candidates alternated, each in a fresh process: their thread pools do not meet."""

from __future__ import annotations

from collections.abc import Sequence

from ..contest.contest import Contest
from ..errors import BackendError, CheckFailedError, ExecutionError
from ..measure import Latency
from ..reference import Reference
from ..spec import ModelSpec
from ..steps import Progress
from .built_arm import arm_of
from .planner import Built, LeftOut

BUDGET_S_EACH = 4.0


def measure_fresh(
    spec: ModelSpec, built: Sequence[Built], on_stage: Progress, *, reference: Reference
) -> tuple[dict[str, Latency], list[LeftOut]]:
    """Latencies of the candidates that run.

    One that fails while it is opened, checked or timed is left out, and the others start again. A
    float32 candidate must answer like the reference once more; one in lower precision was held
    against its own graph when it was proved, and must give finite logits here.

    Args:
        spec: The network.
        built: Candidates with different labels.
        reference: What they are asked, and what float32 candidates must answer.
        on_stage: Called with what is being done.
    """
    latencies: dict[str, Latency] = {}
    failed: list[LeftOut] = []
    left = list(built)
    while left and not latencies:
        latencies, reasons = _measure(spec, left, on_stage, reference)
        failed += [
            LeftOut(candidate=item.candidate, error=BackendError(reasons[item.candidate.label]))
            for item in left
            if item.candidate.label in reasons
        ]
        left = [item for item in left if item.candidate.label not in reasons]
    return latencies, failed


def _measure(
    spec: ModelSpec, built: Sequence[Built], on_stage: Progress, reference: Reference
) -> tuple[dict[str, Latency], dict[str, str]]:
    """Latencies and why some have none; no latencies where one of them ended the contest."""
    arms = [arm_of(item, spec) for item in built]
    questions = (reference.image, reference.logits)
    with Contest(arms, *questions, required=(), on_stage=on_stage) as contest:
        try:
            contest.check()
            samples: dict[str, list[float]] = {}
            if contest.entrants:
                budget_s = BUDGET_S_EACH * len(contest.entrants)
                samples = contest.rounds("saturated", budget_s=budget_s)
        except (CheckFailedError, ExecutionError) as error:
            return {}, {**contest.left_out, str(contest.asked): str(error)}
        entrants = contest.entrants
        latencies = {
            name: Latency(name=name, samples_ms=tuple(values), first_ms=entrants[name].first_ms)
            for name, values in samples.items()
        }
        return latencies, dict(contest.left_out)
