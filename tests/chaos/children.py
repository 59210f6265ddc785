"""What a zygote runs for ``test_children``: benchmarks whose processes die."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

from parnet_deploy.bench.bench_step import BenchOptions, bench_to_deployment
from parnet_deploy.contest import contest
from parnet_deploy.contest.arm import ArmSpec, OpenedArm, SelfCheck
from parnet_deploy.errors import ParnetDeployError
from tests.contest import toy_arms

BEFORE_TIMING = 1 + contest.WARM_UP + contest.TRIAL_ROUNDS


def open_dying(**how: Any) -> OpenedArm:
    """An arm that is right, until it dies."""
    check = SelfCheck(what="itself", error=0.0, limit=1.0)
    return replace(toy_arms.open_dying(**how), self_check=check)


def bench_beside(path: str, how: str, after: int) -> dict[str, Any]:
    """How a benchmark ends beside an arm that answers some calls, and then dies in a way."""
    entry, options = f"{__name__}:open_dying", {"how": how, "after": after}
    arm = ArmSpec(name="toy", entry=entry, options=options, network="other")
    quick = BenchOptions(mode="saturated", rounds=9, budget_s=0.1)
    try:
        report = bench_to_deployment(Path(path), quick, arms=[arm]).report
    except ParnetDeployError as error:
        return {"error": f"{type(error).__name__}: {error}"}
    return {"left_out": dict(report["left_out"])}


def bench_killed(path: str) -> None:
    """A benchmark whose own process is killed while its arms are timed."""

    def die(text: str) -> None:
        if "round" in text:
            os.kill(os.getpid(), signal.SIGKILL)

    options = BenchOptions(mode="saturated", rounds=1000, budget_s=600.0)
    bench_to_deployment(Path(path), options, on_stage=die)
