"""What a comparison of reports says in words: what fails it, what is worth a look, what differs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TypedDict

from ..runtime.backend import on_host
from .change import FOREIGN_SHARE, MARGIN_BY_TIME, Verdict
from .result import OURS, BenchReport, Interval

MEMORY_TIMES, MEMORY_MIB = 1.10, 8.0
MODEL_TIMES = 1.10
P99_TIMES = 1.5


class ModeChange(TypedDict):
    """One mode. ``change`` above 1: slower than then. ``yardstick_ms`` is of one repetition."""

    verdict: Verdict
    change: Interval
    margin: float
    ours_ms: tuple[float, float]
    yardstick_ms: tuple[float, float] | None
    p99_ms: tuple[float, float] | None


class CostChange(TypedDict):
    """What it costs to have the deployment, then and now."""

    old: float
    new: float


def disturbed_by_others(report: BenchReport) -> bool:
    """Whether others used so much of our cores that not even ratios can be trusted."""
    environment = report["environment"]
    foreign = (environment.get("during") or {}).get("foreign_cores")
    spare = len(environment.get("affinity") or ()) - environment["cores_usable"]
    host = on_host(report["subject"]["backend"])
    return bool(
        host
        and foreign is not None
        and foreign - max(0, spare) > FOREIGN_SHARE * environment["cores_usable"]
    )


def memory_failure(costs: Mapping[str, CostChange]) -> list[str]:
    """That it takes more memory than then; small networks are left alone."""
    memory = costs.get("memory_mib")
    if memory is None or memory["new"] <= memory["old"] * MEMORY_TIMES:
        return []
    if memory["new"] - memory["old"] < MEMORY_MIB:
        return []
    return [f"memory: {memory['new']:.0f} MiB, {memory['old']:.0f} MiB then"]


def warn(
    old: BenchReport,
    new: BenchReport,
    modes: Mapping[str, ModeChange],
    costs: Mapping[str, CostChange],
) -> Iterator[str]:
    """What is worth a look but no failure."""
    for text, report in (("then", old), ("now", new)):
        if disturbed_by_others(report):
            cores = report["environment"]["during"]["foreign_cores"]
            yield f"other programs used {cores:.1f} cores {text}: run it again on a quiet machine"
    for mode, found in modes.items():
        if found["verdict"] == "too noisy to tell" and not any(
            map(disturbed_by_others, (old, new))
        ):
            low, high = found["change"]["low"], found["change"]["high"]
            yield (
                f"{mode}: from {percent(low)} to {percent(high)} is possible: "
                "run both again with a longer --budget"
            )
        if found["p99_ms"] is not None and _tail_change(found) > P99_TIMES:
            then, now = found["p99_ms"]
            yield f"{mode}: p99 is {now:.3g} ms, {then:.3g} ms then"
    model = costs.get("model_mib")
    if model is not None and model["new"] > model["old"] * MODEL_TIMES:
        yield f"the model takes {model['new']:.1f} MiB, {model['old']:.1f} MiB then"


def _tail_change(found: ModeChange) -> float:
    """How p99 over p50 changed: what makes everything slower is no longer tail."""
    (then, now), (p99_then, p99_now) = found["ours_ms"], found["p99_ms"] or (1.0, 1.0)
    return (p99_now / now) / (p99_then / then)


def other_differences(old: BenchReport, new: BenchReport, *, by_time: bool) -> Iterator[str]:
    """What else differs. It may well be why the comparison is made."""
    if by_time and on_host(new["subject"]["backend"]):
        yield (
            "compared by time, for the reports have no yardstick in common: "
            f"less than {MARGIN_BY_TIME:.0%} counts as noise"
        )
    for name in ("digest", "plan", "precision", "macs"):
        then, now = (report["subject"].get(name) for report in (old, new))
        if then != now:
            short = [text[:12] if name == "digest" else text for text in (str(then), str(now))]
            yield f"{name}: {short[0]} then, {short[1]} now"
    then, now = (report["arms"][OURS]["facts"].get("cores") for report in (old, new))
    if then != now:
        yield f"threads: {then} then, {now} now"
    sides = old["environment"], new["environment"]
    for name in ("governor", "turbo", "system", "python"):
        then, now = (side.get(name) for side in sides)
        if then != now:
            yield f"{name}: {then} then, {now} now"
    then, now = (side.get("packages") or {} for side in sides)
    for name in sorted({*then, *now}):
        if then.get(name) != now.get(name):
            yield f"{name}: {then.get(name, 'none')} then, {now.get(name, 'none')} now"


def percent(change: float) -> str:
    """A factor as what it adds: 1.1 is +10.0 %."""
    return f"{100 * (change - 1):+.1f} %"
