"""What of a deployment Triton is to run: one engine for its own backend, or all of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..deployment import Deployment
from ..errors import DeploymentError
from ..plan import Plan
from ..runtime.choose import FAKE, PlanFiles, order_plans, read_plan
from .options import Kind, TritonOptions

ENGINE_BACKENDS: dict[Kind, tuple[str, ...]] = {
    "onnxruntime": ("onnxruntime", "onnxruntime-cuda"),
    "tensorrt": ("tensorrt",),
}
"""Backends of ours whose engine files a backend of Triton runs as they are."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """A plan of the deployment, and what was asked for. ``engine`` is None for kind "python"."""

    deployment: Deployment
    options: TritonOptions
    found: PlanFiles

    @property
    def plan(self) -> Plan:
        """The plan that shapes the model's batch and sizes."""
        return self.found.plan

    @property
    def record(self) -> Mapping[str, Any]:
        """How the one engine was made."""
        (engine,) = self.plan.placement.segments
        made: Mapping[str, Any] = self.plan.made.get("engines", {}).get(engine.name, {})
        return made


def choose_source(deployment: Deployment, options: TritonOptions) -> Source:
    """Find the plan that was asked for, or the best that Triton can run in this way.

    Raises:
        DeploymentError: There is none; the message has the command that makes one.
    """
    backends = ENGINE_BACKENDS.get(options.kind)
    keys = order_plans(deployment, key=options.plan)
    if backends is None:
        return Source(deployment=deployment, options=options, found=read_plan(deployment, keys[0]))
    reasons = []
    for key in keys:
        reason = _unfit(deployment.plans[key], backends)
        if reason is None:
            found = read_plan(deployment, key)
            if len(found.plan.placement.segments) == 1:
                _check_types(found.plan, f"plan {key} of {deployment.path}")
                return Source(deployment=deployment, options=options, found=found)
            reason = f"{len(found.plan.placement.segments)} engines"
        reasons.append(f"{key} ({reason})")
    raise DeploymentError(
        f"deployment {deployment.path}: got {', '.join(reasons)}, expected a plan of one engine "
        f"for {' or '.join(backends)}. Run: parnet-deploy build --backend {backends[0]} "
        "--placement one; or export any plan with --kind python."
    )


def has_engine(deployment: Deployment, kind: Kind) -> bool:
    """Whether there is a plan of a backend that this kind can run, whatever its placement."""
    backends = ENGINE_BACKENDS.get(kind)
    plans = deployment.plans.values()
    return any(backends is None or plan.get("backend") in backends for plan in plans)


def _unfit(about: Mapping[str, Any], backends: tuple[str, ...]) -> str | None:
    backend = about.get("backend")
    if backend == FAKE:
        return "simulated"
    return None if backend in backends else f"backend {backend}"


def _check_types(plan: Plan, where: str) -> None:
    """Refuse an engine whose tensors Triton's configuration would describe wrongly."""
    (segment,) = plan.placement.segments
    record = plan.made.get("engines", {}).get(segment.name, {})
    for tensor in record.get("tensors", ()):
        if tensor.get("dtype") != "float32":
            raise DeploymentError(
                f"{where}: got tensor {tensor.get('name')} of type {tensor.get('dtype')}, expected "
                "float32 at the border of the engine. Export with --kind python."
            )
