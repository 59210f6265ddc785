"""What the steps of a deployment have proved and measured so far, each with its date.

Evidence is never out of date: a step that is done again takes with it whatever was made from it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from ..deployment import Deployment
from ..plan import PLAN_FILE
from ..reading import entry, mapping, number, read_json, rows

Kind = Literal["parity", "gates", "bench"]
OURS = "parnet-deploy"
"""Name of the deployment's own arm in ``reports/bench.json``."""
_YARDSTICK = "yardstick"  # no rival


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What one step found. ``passed`` None: there is no report, or it says nothing of this plan.

    ``plan`` is the plan that it speaks of, None for the network before any plan. ``figures``, as
    far as they are known, by ``kind``:

    - parity: ``error``, ``limit`` (of the largest value; the comparison that came nearest to its
      limit), ``compared`` (how many)
    - gates: ``held``, ``gates`` (counts), ``images``, ``agreement``, ``accuracy``,
      ``reference_accuracy`` (shares)
    - bench: by mode (saturated, paced) ``median_ms``, ``low``, ``high`` and ``ratios``, by arm
      (above 1: it takes longer than the deployment)
    """

    step: str
    what: str
    kind: Kind
    passed: bool | None
    finished: str
    plan: str | None = None
    figures: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)


def gather_evidence(deployment: Deployment) -> list[Evidence]:
    """Everything that the steps of a deployment have found, in the order of the steps."""
    return [
        *_fused(deployment),
        *_exported(deployment),
        *_quantized(deployment),
        *_built(deployment),
        *_verified(deployment),
        *_timed(deployment),
    ]


def _fused(deployment: Deployment) -> Iterator[Evidence]:
    if "fuse" not in deployment.steps:
        return
    proof = mapping(read_json(deployment, "reports/fuse.json"), "proof")
    for kind in ("float64", "float32"):
        what = f"fused against trained, {kind}"
        checks = [proof[kind]] if isinstance(proof.get(kind), Mapping) else []
        yield _parity(deployment, "fuse", what, checks)


def _exported(deployment: Deployment) -> Iterator[Evidence]:
    if "export" in deployment.steps:
        checks = rows(read_json(deployment, "reports/export.json"), "checks")
        yield _parity(deployment, "export", "graphs against fused", checks)


def _quantized(deployment: Deployment) -> Iterator[Evidence]:
    for step in sorted(deployment.steps):
        kind, _, target = step.partition(":")
        if kind != "quantize":
            continue
        report = read_json(deployment, f"reports/precision-{target}.json")
        checks = rows(report, "checks")
        held = sum(check.get("passed") is True for check in checks)
        yield Evidence(
            step=step,
            what=f"{target} against float32",
            kind="gates",
            passed=held == len(checks) if checks else None,
            finished=_finished(deployment, step),
            figures={"held": held, "gates": len(checks), **_score(report)} if checks else {},
        )


def _score(report: Mapping[str, Any]) -> dict[str, float]:
    """On the clean images: of the kernels, or of the emulation where they do not run."""
    measured = mapping(report, "measured")
    clean = mapping(measured, "kernel", "clean") or mapping(measured, "emulated", "clean")
    names = ("images", "agreement", "accuracy", "reference_accuracy")
    found = {name: number(clean, name) for name in names}
    return {name: value for name, value in found.items() if value is not None}


def _built(deployment: Deployment) -> Iterator[Evidence]:
    for key, plan in sorted(deployment.plans.items()):
        build = read_json(deployment, f"plans/{key}/{PLAN_FILE}")
        checks = rows(build, "made", "checks")
        yield _parity(deployment, str(plan["step"]), "engines against graphs", checks, plan=key)


def _verified(deployment: Deployment) -> Iterator[Evidence]:
    if "verify" not in deployment.steps:
        return
    plans = mapping(read_json(deployment, "reports/verify.json"), "plans")
    for key in sorted(deployment.plans):  # one that was left out has no checks
        what = "engines against graphs, again"
        yield _parity(deployment, "verify", what, rows(plans, key), plan=key)


def _parity(
    deployment: Deployment,
    step: str,
    what: str,
    checks: Sequence[Mapping[str, Any]],
    *,
    plan: str | None = None,
) -> Evidence:
    """Of many comparisons the one that came nearest to its limit, and whether all passed."""
    errors = [(number(check, "error"), number(check, "tolerance")) for check in checks]
    known = [(error, limit) for error, limit in errors if error is not None and limit]
    figures: dict[str, Any] = {}
    if known:
        error, limit = max(known, key=lambda pair: pair[0] / pair[1])
        figures = {"error": error, "limit": limit, "compared": len(checks)}
    return Evidence(
        step=step,
        what=what,
        kind="parity",
        passed=all(check.get("passed") is True for check in checks) if checks else None,
        finished=_finished(deployment, step),
        plan=plan,
        figures=figures,
    )


def _timed(deployment: Deployment) -> Iterator[Evidence]:
    if "bench" not in deployment.steps:
        return
    report = read_json(deployment, "reports/bench.json")
    arms, plan = mapping(report, "arms"), entry(report, "subject", "plan")
    modes = {
        mode: {**found, "ratios": _ratios(arms, mode)}
        for mode in mapping(arms, OURS, "modes")
        if (found := _median(arms, mode))
    }
    passed = entry(arms, OURS, "check", "passed")
    yield Evidence(
        step="bench",
        what="latency, its output checked first",
        kind="bench",
        passed=passed if isinstance(passed, bool) else None,
        finished=_finished(deployment, "bench"),
        plan=plan if isinstance(plan, str) else None,
        figures=modes,
    )


def _median(arms: Mapping[str, Any], mode: str) -> dict[str, Any]:
    """Our median with its 95 % interval; empty where it is not known."""
    p50 = mapping(arms, OURS, "modes", mode, "quantiles_ms", "p50")
    value = number(p50, "value")
    if value is None:
        return {}
    return {"median_ms": value, "low": number(p50, "low"), "high": number(p50, "high")}


def _ratios(arms: Mapping[str, Any], mode: str) -> dict[str, float]:
    found = {
        name: number(arm, "modes", mode, "ratio_to_ours", "value")
        for name, arm in arms.items()
        if name not in (OURS, _YARDSTICK)
    }
    return {name: value for name, value in found.items() if value is not None}


def _finished(deployment: Deployment, step: str) -> str:
    return str(deployment.steps[step]["finished"])
