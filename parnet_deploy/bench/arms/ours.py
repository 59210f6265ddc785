"""The deployment itself, as an arm, and another one beside it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ...compare import ENGINE_TOLERANCE, compare
from ...contest.arm import OpenedArm, SelfCheck
from ...deployment import Deployment
from ...runtime.session import Runtime
from ...steps import read_reference


def open_ours(*, directory: str, plan: str, threads: int | None = None, **others: Any) -> OpenedArm:
    """Open a plan of the deployment.

    A plan in lower precision has run its canary when it is open: a real image for what was
    calibrated, the reference of the export for bfloat16.
    """
    return _open(directory, plan, threads)


def open_at_another_size(*, directory: str, plan: str, **others: Any) -> OpenedArm:
    """Open a plan to be asked images of a size that nobody knows the logits of.

    So it is asked the reference image first, at its size, and held against that. A plan in lower
    precision has its canary.
    """
    arm = open_ours(directory=directory, plan=plan, **others)
    return _checked(arm, directory, "the reference, at its own size")


def open_other(*, deployment: str, size: Sequence[int], threads: int, **others: Any) -> OpenedArm:
    """Open the best plan of another deployment; it is checked by its own reference.

    Raises:
        DeploymentError: It has no plan that runs here.
    """
    opened, arm = Deployment.open(deployment), _open(deployment, None, threads)
    return replace(
        _checked(arm, deployment, "its own reference"),
        note=f"another deployment, plan {arm.facts['plan']}, {arm.precision}",
        parameters=opened.source.get("parameters"),
        macs=sum(opened.spec.macs(*size).values()),
    )


def _open(directory: str, plan: str | None, threads: int | None) -> OpenedArm:
    """A plan, or the best one."""
    started = time.perf_counter_ns()
    runtime = Runtime.open(directory, plan=plan, threads=threads)
    load_ms = (time.perf_counter_ns() - started) / 1e6
    about, artifacts = runtime.describe(), Deployment.open(directory).artifacts
    canary, own = about.get("canary"), None
    if about["precision"] != "fp32" and canary is not None:
        own = SelfCheck(what=canary["what"], error=canary["error"], limit=canary["tolerance"])
    engines = [name for name in artifacts if name.startswith(f"plans/{about['plan']}/")]
    precision = "" if about["precision"] == "fp32" else f", {about['precision']}"
    return OpenedArm(
        run=runtime,
        note=f"plan {about['plan']}, placement {about['placement']['name']}{precision}",
        precision=about["precision"],
        load_ms=load_ms,
        model_bytes=sum(artifacts[name]["bytes"] for name in engines),
        facts=about,
        self_check=own,
        close=runtime.close,
    )


def _checked(arm: OpenedArm, directory: str, what: str) -> OpenedArm:
    """The arm, held against its deployment's reference if no canary was; the contest judges it."""
    if arm.self_check is not None:
        return arm
    reference = read_reference(Deployment.open(directory))
    parity = compare(
        arm.run(reference.image), reference.logits, tolerance=ENGINE_TOLERANCE, what=what
    )
    check = SelfCheck(what=what, error=parity.error, limit=parity.tolerance)
    return replace(arm, self_check=check)
