"""The step ``bench``: time a built plan beside other ways to run the same network."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..compare import ENGINE_TOLERANCE, compare
from ..deployment import Deployment, step_key
from ..errors import SpecError
from ..machine.describe import describe_machine
from ..measure import Arm, Latency, alternate, compare_latency
from ..runtime.session import Runtime
from ..steps import Progress, StepResult, read_reference, write_report

BENCH_REPORT = "reports/bench.json"
OURS = "parnet-deploy"
TRIAL_ROUNDS = 3
ROUNDS = (20, 1000)
NOISY_SPREAD = 1.5  # p90 over p50 of our arm


@dataclass(frozen=True, kw_only=True)
class BenchOptions:
    """``rounds`` None: as many as fit into ``budget_s`` seconds, 20 at least."""

    plan: str | None = None
    backend: str | None = None
    batch: int = 1
    rounds: int | None = None
    budget_s: float = 20.0

    def __post_init__(self) -> None:
        if self.batch < 1 or (self.rounds is not None and self.rounds < 1):
            raise SpecError("bench: batch and rounds must be 1 or more.")


def bench_to_deployment(
    directory: Path,
    options: BenchOptions | None = None,
    *,
    arms: Sequence[Arm] = (),
    left_out: Mapping[str, str] | None = None,
    on_stage: Progress = lambda text: None,
) -> StepResult:
    """Time the chosen plan and the given arms, alternated in one run, and keep every sample.

    The logits of every arm are compared with the stored reference before anything is timed; those
    of a plan in lower precision with its own, the canary.

    Args:
        directory: The deployment, built.
        options: What to run and how long.
        arms: Other ways to run the same network (``export.baselines``).
        left_out: Arms that could not be had here, and why; they stand in the report.
        on_stage: Called with what is being done, for progress.

    Returns: A result whose report has ``environment``, ``arms`` (name -> quantiles, load and first
        run apart, ratio to ours with its 95 % interval, samples), ``left_out`` and ``noisy``.

    Raises:
        CheckFailedError: An arm computes something else; nothing was timed.
        BackendError: No plan runs on this machine.
    """
    options = options or BenchOptions()
    deployment = Deployment.open(directory)
    reference = read_reference(deployment)
    image = np.concatenate([reference.image] * options.batch)
    logits = np.concatenate([reference.logits] * options.batch)
    started = time.perf_counter_ns()
    with Runtime.open(directory, plan=options.plan, backend=options.backend) as runtime:
        load_ms = (time.perf_counter_ns() - started) / 1e6
        about = runtime.describe()
        ours = Arm(name=OURS, run=runtime, load_ms=load_ms, note=_describe(about))
        every = [ours, *arms]
        on_stage("checking the output of every arm")
        if about["precision"] == "fp32":
            checks = [_check(arm, image, logits) for arm in every]
        else:  # a random image says nothing of INT8: its canary, run at open, is a real one
            checks = [about["canary"], *(_check(arm, image, logits) for arm in arms)]
        calls = {arm.name: partial(arm.run, image) for arm in every}
        rounds = options.rounds
        if rounds is None:
            trial = alternate(calls, rounds=TRIAL_ROUNDS, warm_up=1)
            one_round_ms = sum(latency.median_ms for latency in trial.values())
            rounds = int(min(max(options.budget_s * 1e3 / one_round_ms, ROUNDS[0]), ROUNDS[1]))
        environment = describe_machine()
        latencies = alternate(
            calls, rounds=rounds, on_round=lambda done: on_stage(f"round {done} of {rounds}")
        )
    report = {
        "environment": environment,
        "deployment": deployment.digest,
        "plan": about["plan"],
        "backend": about["backend"],
        "simulated": about["backend"] == "fake",
        "batch": options.batch,
        "input_size": "x".join(map(str, image.shape[2:])),
        "rounds": rounds,
        "arms": {arm.name: _row(arm, latencies) for arm in every},
        "checks": checks,
        "left_out": dict(left_out or {}),
        "noisy": _noise(latencies[OURS], environment),
    }
    with Deployment.edit(directory) as txn:
        write_report(txn.stage(BENCH_REPORT), report)
        made_from = {f"build:{about['plan']}"}
        txn.finish_step("bench", key=step_key(digest=deployment.digest), made_from=made_from)
    return StepResult(path=directory, skipped=False, report=report)


def _check(arm: Arm, image: NDArray[np.float32], logits: NDArray[np.float32]) -> dict[str, Any]:
    what = f"arm {arm.name}"
    return (
        compare(arm.run(image), logits, tolerance=ENGINE_TOLERANCE, what=what).require().to_json()
    )


def _row(arm: Arm, latencies: Mapping[str, Latency]) -> dict[str, Any]:
    ratio = compare_latency(latencies[arm.name], latencies[OURS])
    return {
        **latencies[arm.name].to_json(),
        "load_ms": arm.load_ms,
        "note": arm.note,
        "ratio_to_ours": ratio.to_json(),
    }


def _noise(ours: Latency, environment: Mapping[str, Any]) -> str | None:
    """Why the figures should be taken with care, if they should."""
    spread = ours.quantile_ms(0.9) / ours.median_ms
    load = environment["load_average"]
    if load and load[0] > environment["cores_usable"]:
        return f"load average {load[0]} on {environment['cores_usable']} cores before the run"
    if spread > NOISY_SPREAD:
        return f"p90 is {spread:.1f} times the median"
    return None


def _describe(about: Mapping[str, Any]) -> str:
    precision = "" if about["precision"] == "fp32" else f", {about['precision']}"
    return f"plan {about['plan']}, placement {about['placement']['name']}{precision}"
