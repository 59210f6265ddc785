"""Which plan of a deployment to run, and its files."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..deployment import Deployment
from ..errors import (
    BackendError,
    DeploymentCorruptError,
    DeploymentError,
    DeviceUnavailableError,
    EngineLoadError,
    MissingExtraError,
    SpecError,
)
from ..placement import remap
from ..plan import CANARY_FILE, PLAN_FILE, Plan
from .backend import BACKENDS, backend_rank
from .engine_file import CheckedFile

FAKE = "fake"
NOT_HERE = (MissingExtraError, DeviceUnavailableError, EngineLoadError)
"""What means that a plan is for another machine: the next one is tried."""


@dataclass(frozen=True, kw_only=True)
class PlanFiles:
    """A plan and its files. ``canary`` is the stored reference, if there is one.

    The plan and the canary are checked; engines are when they are read, which loading does.
    """

    key: str
    plan: Plan
    engines: Mapping[str, CheckedFile]
    canary: bytes | None


def order_plans(
    deployment: Deployment,
    *,
    backend: str | None = None,
    key: str | None = None,
    simulated: bool = False,
) -> tuple[str, ...]:
    """Keys of the plans to try, the best first: by rank of the backend, then the newest.

    A plan in bfloat16 comes behind the others of its rank: no images have judged it, so it runs
    where it is named, or where there is nothing else.

    Medians of different builds are not compared: they were measured under different load. Within
    one build the builder has compared them. Simulated plans count only if asked for, by name or
    by ``simulated``, or if there are no others.

    Raises:
        DeploymentError: There is no such plan.
        BackendError: There is no backend of this name.
        SpecError: The backend is not a name.
    """
    plans = deployment.plans
    if not isinstance(backend, str | None):
        raise SpecError(f"backend: got {backend!r}, expected a name or None.")
    if backend is not None:
        backend_rank(backend)  # a typo is answered with the names
    chosen = {
        name: about
        for name, about in plans.items()
        if key in (None, name) and backend in (None, about.get("backend"))
    }
    if key is None and backend is None and not simulated:
        real = {name: about for name, about in chosen.items() if about.get("backend") != FAKE}
        chosen = real or chosen
    if not chosen:
        asked = " ".join(
            f"{what} {value}"
            for what, value in (("plan", key), ("backend", backend))
            if value is not None
        )
        there = ", ".join(f"{name} ({plans[name].get('backend')})" for name in sorted(plans))
        step = "Run: parnet-deploy build."
        if key is not None and plans:
            step = f"Take one of those; parnet-deploy inspect {deployment.path} says more."
        raise DeploymentError(
            f"deployment {deployment.path}: got {there or 'no plans'}, "
            f"expected {asked or 'one or more'}. {step}"
        )

    def made(name: str) -> tuple[str, str]:
        """When its step was finished, which no clock that is set back makes earlier than others."""
        step = deployment.steps[chosen[name]["step"]]
        return str(step["finished"]), str(chosen[name].get("built", ""))

    newest = sorted(chosen, key=made, reverse=True)
    return tuple(sorted(newest, key=lambda name: (_rank(chosen[name]), _unjudged(chosen[name]))))


def read_plan(deployment: Deployment, key: str, *, packed_devices: bool = False) -> PlanFiles:
    """Read a plan; its engines are not read yet.

    Args:
        deployment: The deployment.
        key: The plan's.
        packed_devices: Number its devices from 0, in their order; see ``Runtime.open``.

    Raises:
        DeploymentCorruptError: A file is not the one that was written.
        DeploymentError: Another schema version wrote the plan.
    """
    folder = f"plans/{key}"
    where = f"{deployment.path}/{folder}/{PLAN_FILE}"
    try:
        plan = Plan.from_json(json.loads(deployment.read_bytes(f"{folder}/{PLAN_FILE}")))
    except ValueError as error:
        raise DeploymentCorruptError(
            f"plan {where}: got {error}, expected JSON. Run: parnet-deploy build."
        ) from error
    if packed_devices:
        targets = {device: i for i, device in enumerate(plan.placement.devices)}
        plan = replace(plan, placement=remap(plan.placement, targets))
    engines = {
        segment: CheckedFile(deployment=deployment, name=f"{folder}/{file}")
        for segment, file in plan.engines.items()
    }
    canary = f"{folder}/{CANARY_FILE}"
    known = canary in deployment.artifacts
    return PlanFiles(
        key=key,
        plan=plan,
        engines=engines,
        canary=deployment.read_bytes(canary) if known else None,
    )


def _rank(about: Mapping[str, Any]) -> float:
    name = about.get("backend")
    if not isinstance(name, str) or name not in BACKENDS:
        return math.inf
    return BACKENDS[name].rank


def _unjudged(about: Mapping[str, Any]) -> bool:
    return about.get("precision") == "bf16"


def none_runs(deployment: Deployment, reasons: Mapping[str, str]) -> BackendError:
    """The error that says why each plan was left out."""
    tried = " ".join(f"[{key}] {reason}" for key, reason in reasons.items())
    return BackendError(f"deployment {deployment.path}: no plan runs on this machine. {tried}")
