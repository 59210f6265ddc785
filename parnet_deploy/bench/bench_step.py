"""The step ``bench``: time a built plan beside other ways to answer the same images."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..contest.arm import ArmSpec
from ..contest.contest import RATE_HZ, Contest
from ..deployment import Deployment, step_key
from ..errors import SpecError
from ..machine.cores import usable_cores
from ..runtime.backend import on_host
from ..runtime.session import Runtime
from ..signing.trust import open_trusted
from ..steps import Progress, StepResult, read_reference, write_report
from .arm_results import Turns, arm_result
from .arms.table import arm_spec, find_arm
from .arms.yardstick import yardstick_repeats
from .environment import capture, joined
from .noise import noise
from .report.evidence import gather
from .report.page import draw_report
from .report.verdict import verdict
from .result import (
    BENCH_PAGE,
    BENCH_REPORT,
    OURS,
    SCHEMA,
    YARDSTICK,
    BenchReport,
    Mode,
    Subject,
)
from .split.explain import explain
from .sweep import SweepOptions, sweep

MODES: Mapping[str, tuple[Mode, ...]] = {
    "saturated": ("saturated",),
    "paced": ("paced",),
    "both": ("saturated", "paced"),
}


@dataclass(frozen=True, kw_only=True)
class BenchOptions:
    """``vs`` are names of arms; ``curves`` is what to draw beside. ``budget_s`` is for the modes.

    ``rounds`` None: in each mode as many as fit into the budget, for 20 samples of each arm at
    least.
    """

    plan: str | None = None
    backend: str | None = None
    batch: int = 1
    vs: tuple[str, ...] = ()
    curves: SweepOptions | None = None
    mode: Literal["saturated", "paced", "both"] = "both"
    rate_hz: float = RATE_HZ
    rounds: int | None = None
    budget_s: float = 40.0

    def __post_init__(self) -> None:
        if self.batch < 1 or (self.rounds is not None and self.rounds < 1):
            raise SpecError("bench: batch and rounds must be 1 or more.")
        if self.mode not in MODES:
            raise SpecError(f"bench mode: got {self.mode!r}, expected one of {', '.join(MODES)}.")
        if not 0 < self.rate_hz <= 1e6 or not 0 < self.budget_s < float("inf"):
            raise SpecError("bench: rate and budget must be positive numbers.")
        object.__setattr__(self, "vs", tuple(dict.fromkeys(map(find_arm, self.vs))))


def bench_to_deployment(
    directory: Path,
    options: BenchOptions | None = None,
    *,
    arms: Sequence[ArmSpec] = (),
    timeline: Mapping[str, Any] | None = None,
    check: Callable[[Subject], None] = lambda subject: None,
    on_stage: Progress = lambda text: None,
) -> StepResult:
    """Time the chosen plan and other arms in turns, and keep every sample.

    Every arm has a process of its own. The logits of those that run the same network are compared
    with the stored reference before anything is timed; those of a plan in lower precision with its
    own, the canary.

    Args:
        directory: The deployment, built.
        options: What to run and how long.
        arms: Arms that are in no table.
        timeline: The report of ``trace_to_deployment``, to stand in this one.
        check: Called with what is to be measured, before it is; may raise.
        on_stage: Called with what is being done, for progress.

    Returns: A result whose report is a ``BenchReport``.

    Raises:
        CheckFailedError: An arm computes something else; nothing was timed or written.
        BackendError: No plan runs on this machine, or an arm died while it was timed.
    """
    options = options or BenchOptions()
    deployment = open_trusted(directory)
    if not os.access(directory, os.W_OK):
        raise SpecError(
            f"deployment {directory}: cannot be written to, and a report must be. Copy it to where "
            "it can."
        )
    reference = read_reference(deployment)
    on_stage("choosing the plan")
    with Runtime.open(directory, plan=options.plan, backend=options.backend) as runtime:
        about, most = runtime.describe(), runtime.max_batch
    if options.batch > most:
        raise SpecError(
            f"bench batch: got {options.batch}, expected 1 to {most}: the plan takes no more. "
            f"Run: parnet-deploy build --max-batch {options.batch}."
        )
    image, logits = (
        np.concatenate([values] * options.batch) for values in (reference.image, reference.logits)
    )
    subject = _subject(deployment, about, (options.batch, *image.shape[2:]))
    check(subject)
    threads = about["facts"].get("cores") or usable_cores()
    specs = [
        arm_spec(
            name,
            directory,
            plan=subject["plan"],
            batch=options.batch,
            size=(image.shape[2], image.shape[3]),
            classes=subject["classes"],
            threads=threads,
        )
        for name in dict.fromkeys((OURS, *options.vs, *_yardsticks(subject)))
    ]
    repeats = yardstick_repeats(subject["macs"] * options.batch)
    unit = {"repeats": repeats, "threads": usable_cores()}  # the machine's, whatever the plan uses
    specs = [
        replace(spec, options={**spec.options, **unit}) if spec.name == YARDSTICK else spec
        for spec in specs
    ]
    with Contest([*specs, *arms], image, logits, on_stage=on_stage) as contest:
        contest.check()
        before = capture(deployment.digest)
        turns: dict[Mode, Turns] = {}
        budget_s = options.budget_s / len(MODES[options.mode])
        for mode in MODES[options.mode]:
            samples = contest.rounds(mode, options.rounds, budget_s, options.rate_hz)
            turns[mode] = Turns(samples_ms=samples, calls=contest.calls, late=contest.late)
        after = capture(deployment.digest)
    curves = []
    if options.curves is not None:
        wanted = replace(options.curves, plan=subject["plan"], backend=subject["backend"])
        curves = sweep(directory, wanted, on_stage=on_stage)
    split, roofline, unexplained = explain(
        directory, subject, image, threads=threads, on_stage=on_stage
    )
    on_stage("computing intervals")
    report: BenchReport = {
        "schema": SCHEMA,
        "written": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "environment": joined(before, after),
        "subject": subject,
        "rounds": {mode: found.rounds for mode, found in turns.items()},
        "rate_hz": options.rate_hz if "paced" in turns else None,
        "arms": {name: arm_result(arm, turns) for name, arm in contest.entrants.items()},
        "left_out": contest.left_out | unexplained,
        "noise": noise(before, after, next(iter(turns.values())).samples_ms[OURS]),
        "split": split,
        "roofline": roofline,
        "curves": curves,
        "timeline": None if timeline is None else dict(timeline),
        "verdict": [],
    }
    evidence = gather(deployment, subject["plan"])
    report["verdict"] = verdict(report, evidence)
    page = draw_report(report, evidence)
    with Deployment.edit(directory) as txn:
        write_report(txn.stage(BENCH_REPORT), report)
        txn.stage(BENCH_PAGE).write_text(page, encoding="utf-8")
        made_from = {f"build:{subject['plan']}"}
        txn.finish_step("bench", key=step_key(digest=deployment.digest), made_from=made_from)
    return StepResult(path=directory, skipped=False, report=report)


def _subject(
    deployment: Deployment, about: Mapping[str, Any], shape: tuple[int, int, int]
) -> Subject:
    """What is measured: a deployment, what its runtime says, and (batch, height, width)."""
    spec = deployment.spec
    return Subject(
        name=deployment.name,
        digest=deployment.digest,
        plan=about["plan"],
        placement=about["placement"]["name"],
        backend=about["backend"],
        simulated=about["backend"] == "fake",
        precision=about["precision"],
        batch=shape[0],
        input_size=list(shape[1:]),
        classes=spec.num_classes,
        parameters=deployment.source.get("parameters"),
        macs=sum(spec.macs(*shape[1:]).values()),
    )


def _yardsticks(subject: Subject) -> tuple[str, ...]:
    """The yardstick, where it says something about the backend."""
    return (YARDSTICK,) if on_host(subject["backend"]) else ()
