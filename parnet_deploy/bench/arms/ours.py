"""The deployment itself, as an arm, and another one beside it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ...compare import ENGINE_TOLERANCE, compare
from ...deployment import Deployment
from ...runtime.session import Runtime
from ...steps import read_reference
from .arm import OpenedArm, SelfCheck


def open_ours(*, directory: str, plan: str, threads: int | None = None, **others: Any) -> OpenedArm:
    """Open a plan of the deployment.

    A plan in lower precision has run its canary, which is a real image, when it is open.
    """
    started = time.perf_counter_ns()
    runtime = Runtime.open(directory, plan=plan, threads=threads)
    load_ms = (time.perf_counter_ns() - started) / 1e6
    about, artifacts = runtime.describe(), Deployment.open(directory).artifacts
    canary, own = about.get("canary"), None
    if about["precision"] != "fp32" and canary is not None:
        own = SelfCheck(what=canary["what"], error=canary["error"], limit=canary["tolerance"])
    engines = [name for name in artifacts if name.startswith(f"plans/{plan}/")]
    precision = "" if about["precision"] == "fp32" else f", {about['precision']}"
    return OpenedArm(
        run=runtime,
        note=f"plan {plan}, placement {about['placement']['name']}{precision}",
        precision=about["precision"],
        load_ms=load_ms,
        model_bytes=sum(artifacts[name]["bytes"] for name in engines),
        facts=about,
        self_check=own,
        close=runtime.close,
    )


def open_at_another_size(*, directory: str, plan: str, **others: Any) -> OpenedArm:
    """Open a plan to be asked images of a size that nobody knows the logits of.

    So it is asked the reference image first, at its size, and held against that. A plan in lower
    precision has its canary.
    """
    arm = open_ours(directory=directory, plan=plan, **others)
    if arm.self_check is not None:
        return arm
    reference = read_reference(Deployment.open(directory))
    logits = arm.run(reference.image)
    parity = compare(logits, reference.logits, tolerance=ENGINE_TOLERANCE, what=f"plan {plan}")
    what = "the reference, at its own size"
    check = SelfCheck(what=what, error=parity.error, limit=parity.tolerance)
    return replace(arm, self_check=check)


def open_other(*, deployment: str, size: Sequence[int], threads: int, **others: Any) -> OpenedArm:
    """Open the best plan of another deployment; it is checked by its own reference.

    Raises:
        DeploymentError: It has no plan that runs here.
        CheckFailedError: It does not answer what its own reference says.
    """
    opened = Deployment.open(deployment)
    started = time.perf_counter_ns()
    runtime = Runtime.open(deployment, threads=threads)
    load_ms = (time.perf_counter_ns() - started) / 1e6
    about, artifacts = runtime.describe(), opened.artifacts
    canary = about.get("canary")
    if about["precision"] != "fp32" and canary is not None:
        own = SelfCheck(what=canary["what"], error=canary["error"], limit=canary["tolerance"])
    else:
        reference = read_reference(opened)
        found = compare(
            runtime(reference.image),
            reference.logits,
            tolerance=ENGINE_TOLERANCE,
            what=f"deployment {deployment}",
        ).require()
        own = SelfCheck(what="its own reference", error=found.error, limit=found.tolerance)
    engines = [name for name in artifacts if name.startswith(f"plans/{about['plan']}/")]
    return OpenedArm(
        run=runtime,
        note=f"another deployment, plan {about['plan']}, {about['precision']}",
        precision=about["precision"],
        load_ms=load_ms,
        model_bytes=sum(artifacts[name]["bytes"] for name in engines),
        parameters=opened.source.get("parameters"),
        macs=sum(opened.spec.macs(*size).values()),
        facts=about,
        self_check=own,
        close=runtime.close,
    )
