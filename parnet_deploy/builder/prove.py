"""Hold a plan's engines against what they must answer, here or in a process of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..compare import Parity
from ..contest.arm import ArmSpec, OpenedArm, SelfCheck
from ..contest.contest import Contest, Limits
from ..plan import Plan
from ..reference import Reference
from ..runtime.session import Runtime
from ..spec import IMAGE, ModelSpec
from .planner import engine_files
from .verify import Arrays, verify_engines, verify_whole

ENTRY = f"{__name__}:open_proved"
OPEN_S = 600.0  # for each proof: engines are compiled for two batches of each size
_LOGITS = "reference logits"  # in a file beside the tensors, whose names have no blanks


@dataclass(frozen=True, kw_only=True)
class Proof:
    """An image with its logits, and every tensor between the parts: what is right."""

    reference: Reference
    values: Arrays


def prove_plan(
    spec: ModelSpec, plan: Plan, folder: Path, proofs: Sequence[Proof], *, tolerance: float
) -> list[Parity]:
    """Each engine by itself, then the whole, on each proof. None is required to pass.

    Raises:
        BackendError: An engine cannot be loaded or run.
    """
    files = engine_files(plan, folder)
    checks = []
    for proof in proofs:
        checks += verify_engines(spec, plan, files, proof.values, tolerance=tolerance)
    with Runtime.from_plan(spec, plan, files) as runtime:
        for proof in proofs:
            checks += verify_whole(
                runtime,
                proof.reference.image,
                proof.reference.logits,
                max_batch=plan.max_batch,
                tolerance=tolerance,
            )
    return checks


def prove_in_child(
    spec: ModelSpec, plan: Plan, folder: Path, proofs: Sequence[Proof], *, tolerance: float
) -> list[Parity]:
    """The same in a process of its own, whose crash is an error like any other.

    Raises:
        BackendError: An engine cannot be loaded or run, or ended its process.
    """
    files = []
    for index, proof in enumerate(proofs):
        file = folder / f"proof{index}.npz"
        stored = {**proof.values, _LOGITS: proof.reference.logits}
        np.savez(file, **stored)  # type: ignore[arg-type]  # which takes a name for an option
        files.append(str(file))
    options = {
        "spec": spec.to_json(),
        "plan": plan.to_json(),
        "folder": str(folder),
        "files": files,
        "tolerance": tolerance,
    }
    name = f"{plan.backend}, {plan.placement.name}"
    arm = ArmSpec(name=name, entry=ENTRY, options=options)
    limits = Limits(open_s=OPEN_S * len(proofs))
    image = proofs[0].reference.image
    with Contest([arm], image, None, required=(name,), limits=limits) as contest:
        return [Parity(**check) for check in contest.entrants[name].facts["checks"]]


def open_proved(
    *,
    spec: Mapping[str, Any],
    plan: Mapping[str, Any],
    folder: str,
    files: Sequence[str],
    tolerance: float,
) -> OpenedArm:
    """In that process: prove, and tell the checks as ``facts``; the arm itself is not asked."""
    proofs = []
    for file in files:
        with np.load(file, allow_pickle=False) as stored:
            values = dict(stored)
        logits = values.pop(_LOGITS)
        proofs.append(Proof(reference=Reference(image=values[IMAGE], logits=logits), values=values))
    checks = prove_plan(
        ModelSpec.from_json(spec), Plan.from_json(plan), Path(folder), proofs, tolerance=tolerance
    )
    worst = max(check.error for check in checks)
    return OpenedArm(
        run=lambda images: images,
        note="proved",
        facts={"checks": [asdict(check) for check in checks]},
        self_check=SelfCheck(what="its graphs", error=worst, limit=tolerance),
    )
