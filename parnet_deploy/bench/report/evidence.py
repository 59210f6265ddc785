"""What the other steps of a deployment found, as far as it is there and can be read."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...deployment import Deployment
from ...errors import DeploymentError
from ...plan import PLAN_FILE
from ...reading import entry, listing, mapping, number, read_json
from ..result import Subject

_REPORTS = ("fuse", "export", "verify", "calibrate")
_PRECISION = re.compile(r"reports/(precision-[a-z0-9-]+)\.json$")
_PICTURE = "reports/timeline.svg"
_IMAGES = re.compile(r"(\d+) images ")

Evidence = Mapping[str, Any]
"""By name: the reports (fuse, export, verify, calibrate, precision-...), ``build`` of the plan that
was measured, ``manifest`` and, as text, ``timeline_svg``. Each may be missing."""


@dataclass(frozen=True, kw_only=True)
class Proof:
    """A comparison that a step made. ``top1_equal`` is the share of equal answers, if counted."""

    step: str
    what: str
    error: float
    limit: float
    passed: bool
    top1_equal: float | None = None

    @property
    def images(self) -> int | None:
        """How many images were compared, where it was more than a reference."""
        found = _IMAGES.match(self.what)
        return int(found[1]) if found else None


def gather(deployment: Deployment, plan: str) -> dict[str, Any]:
    """Read the evidence of a deployment; what is missing or was changed is left out.

    Args:
        deployment: Opened.
        plan: Key of the plan that was measured.
    """
    names = {f"reports/{name}.json": name for name in _REPORTS}
    names |= {name: m[1] for name in deployment.artifacts if (m := _PRECISION.match(name))}
    names[f"plans/{plan}/{PLAN_FILE}"] = "build"
    found: dict[str, Any] = {}
    for path, name in names.items():
        data = read_json(deployment, path)
        if data:
            found[name] = data
    picture = _read(deployment, _PICTURE)
    if picture is not None:
        found["timeline_svg"] = picture.decode("utf-8", "replace")
    found["manifest"] = {
        "digest": deployment.digest,
        "written": deployment.written,
        "spec": deployment.spec.to_json(),
        "source": dict(deployment.source),
        "plans": {key: dict(about) for key, about in deployment.plans.items()},
        "steps": {name: dict(about) for name, about in deployment.steps.items()},
    }
    return found


def proofs(evidence: Evidence, plan: str) -> list[Proof]:
    """The proof of every step for the whole network, and of a step's parts the worst one."""
    fused = mapping(evidence, "fuse", "proof")
    kinds: list[tuple[str, list[Proof]]] = [
        ("fuse", list(_read_proofs("fuse", [fused.get("float64"), fused.get("float32")]))),
        ("export", list(_read_proofs("export", listing(evidence, "export", "checks")))),
        ("build", list(_read_proofs("build", listing(evidence, "build", "made", "checks")))),
        ("verify", list(_read_proofs("verify", listing(evidence, "verify", "plans", plan)))),
    ]
    found: list[Proof] = []
    for step, every in kinds:
        if step == "fuse":
            found += every
            continue
        counted = [proof for proof in every if proof.images is not None]
        plain = [proof for proof in every if proof.images is None]
        failed = [proof for proof in plain if not proof.passed]
        found += failed or ([max(plain, key=lambda proof: proof.error)] if plain else [])
        found += counted
    return found


def is_verified(evidence: Evidence, plan: str) -> bool:
    """Whether ``verify`` held this plan against the trained network."""
    return bool(listing(evidence, "verify", "plans", plan))


def precisions(evidence: Evidence, backend: str | None = None) -> dict[str, Mapping[str, Any]]:
    """The reports of ``calibrate`` by target: int8-cpu, fp16.

    Args:
        evidence: What was found.
        backend: Only what is of use to this one.
    """
    start, other = "precision-", ""
    if backend is not None:
        other = "-cpu" if backend.startswith("tensorrt") else "-trt"
    return {
        name.removeprefix(start): report
        for name, report in evidence.items()
        if name.startswith(start) and isinstance(report, Mapping)
        if not other or not name.endswith(other)
    }


def own_precision(evidence: Evidence, subject: Subject) -> Mapping[str, Any] | None:
    """The report of ``calibrate`` that the measured plan comes from; None in float32."""
    found = precisions(evidence, subject["backend"])
    return next((r for name, r in found.items() if name.startswith(subject["precision"])), None)


def scores(report: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Of a report of ``calibrate`` the scores by image set: of kernels, or of the emulation."""
    measured = mapping(report, "measured")
    found = measured.get("kernel") or measured.get("emulated")
    every = found if isinstance(found, Mapping) else {}
    return {name: score for name, score in every.items() if isinstance(score, Mapping)}


def _read(deployment: Deployment, path: str) -> bytes | None:
    try:
        return deployment.read_bytes(path) if path in deployment.artifacts else None
    except DeploymentError:
        return None


def _read_proofs(step: str, checks: Sequence[object]) -> Iterator[Proof]:
    for check in checks:
        error, limit = number(check, "error"), number(check, "tolerance")
        if error is None or limit is None:
            continue
        yield Proof(
            step=step,
            what=str(entry(check, "what")),
            error=error,
            limit=limit,
            passed=entry(check, "passed") is True,
            top1_equal=number(check, "top1_equal"),
        )
