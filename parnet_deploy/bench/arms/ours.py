"""The deployment itself, as an arm."""

from __future__ import annotations

import time
from typing import Any

from ...deployment import Deployment
from ...runtime.session import Runtime
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
