"""A candidate of a build as an arm of a contest: opened in a process of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from ..compare import ENGINE_TOLERANCE
from ..contest.arm import ArmSpec, Array, OpenedArm, SelfCheck
from ..plan import Plan
from ..runtime.session import Runtime
from ..spec import ModelSpec
from .planner import Built, engine_files

TRACED_CALLS, WARM_UP = 15, 3


def arm_of(built: Built, spec: ModelSpec, function: str = "open_built", **options: Any) -> ArmSpec:
    """What a contest needs to open a candidate with a function of this module."""
    return ArmSpec(
        name=built.candidate.label,
        entry=f"{__name__}:{function}",
        options={
            "spec": spec.to_json(),
            "plan": built.plan.to_json(),
            "folder": str(built.folder),
            **options,
        },
    )


def open_built(*, spec: Mapping[str, Any], plan: Mapping[str, Any], folder: str) -> OpenedArm:
    """Open engines that were built and proved.

    A candidate in lower precision was proved against its own graph; the contest takes that, for a
    random image says nothing of it.
    """
    runtime, built = _open(spec, plan, folder, trace=False)
    checks = built.made["checks"]
    worst = max(checks, key=lambda check: float(check["error"]) / float(check["tolerance"]))
    proof = SelfCheck(
        what=f"its own graph, {worst['what']}", error=worst["error"], limit=worst["tolerance"]
    )
    return OpenedArm(
        run=runtime,
        note=built.placement.name,
        precision=built.precision,
        self_check=None if built.precision == "fp32" else proof,
        close=runtime.close,
    )


def open_traced(
    *, spec: Mapping[str, Any], plan: Mapping[str, Any], folder: str, shape: Sequence[int]
) -> OpenedArm:
    """Run a candidate some times and tell what each of its engines took.

    The time of an engine has in it what it does at its borders: copies, changes of layout.

    Args:
        spec: The network, as JSON.
        plan: The plan, as JSON.
        folder: Where its engine files are.
        shape: Of the image to run.

    Returns: An arm whose ``facts`` have ``segment_ms``: the median by segment.
    """
    runtime, _ = _open(spec, plan, folder, trace=True)
    image: Array = np.zeros(shape, dtype=np.float32)
    for _ in range(WARM_UP):
        runtime(image)
    before = len(runtime.timeline())
    for _ in range(TRACED_CALLS):
        runtime(image)
    spent: dict[str, list[float]] = {}
    for entry in runtime.timeline()[before:]:
        if entry.op == "run":
            spent.setdefault(entry.name, []).append((entry.end_us - entry.start_us) / 1e3)
    return OpenedArm(
        run=runtime,
        note="traced",
        facts={"segment_ms": {name: median(times) for name, times in spent.items()}},
        self_check=SelfCheck(what="proved before", error=0.0, limit=ENGINE_TOLERANCE),
        close=runtime.close,
    )


def _open(
    spec: Mapping[str, Any], plan: Mapping[str, Any], folder: str, *, trace: bool
) -> tuple[Runtime, Plan]:
    built = Plan.from_json(plan)
    files = engine_files(built, Path(folder))
    return Runtime.from_plan(ModelSpec.from_json(spec), built, files, trace=trace), built
