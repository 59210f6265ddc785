"""Measure candidates alternated, each in a fresh process: their thread pools do not meet."""

from __future__ import annotations

from collections.abc import Sequence

from ..contest.contest import Contest
from ..errors import BackendError
from ..measure import Latency
from ..reference import Reference
from ..spec import ModelSpec
from ..steps import Progress
from .built_arm import arm_of
from .planner import Built, LeftOut

BUDGET_S_EACH = 4.0
MAX_ROUNDS = 60


def measure_fresh(
    spec: ModelSpec, built: Sequence[Built], on_stage: Progress, *, reference: Reference
) -> tuple[dict[str, Latency], list[LeftOut]]:
    """Latencies of the candidates that run and answer right.

    Args:
        spec: The network.
        built: Candidates with different labels.
        reference: What they are asked, and what float32 candidates must answer.
        on_stage: Called with what is being done.

    Raises:
        CheckFailedError: A candidate answers otherwise in a process of its own than when proved.
        ExecutionError: One failed while it was timed.
    """
    arms = [arm_of(item, spec) for item in built]
    questions = (reference.image, reference.logits)
    with Contest(arms, *questions, required=(), on_stage=on_stage) as contest:
        contest.check()
        samples: dict[str, list[float]] = {}
        if contest.entrants:
            samples = contest.rounds("saturated", budget_s=BUDGET_S_EACH * len(contest.entrants))
        first = {name: entrant.first_ms for name, entrant in contest.entrants.items()}
        out = dict(contest.left_out)
    failed = [
        LeftOut(candidate=item.candidate, error=BackendError(out[item.candidate.label]))
        for item in built
        if item.candidate.label in out
    ]
    latencies = {
        name: Latency(name=name, samples_ms=tuple(values), first_ms=first[name])
        for name, values in samples.items()
    }
    return latencies, failed
