"""Which engines each plan of a deployment has, and on which device they run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ..deployment import Deployment
from ..errors import DeploymentError
from ..plan import PLAN_FILE, Plan
from ..reading import entry, mapping


@dataclass(frozen=True, kw_only=True)
class Engine:
    """One engine of a plan: the parts it computes, where, on which backend, and its file.

    ``device`` is an ordinal of the backend's devices, ``lane`` the ordered queue on it. ``bytes``
    and ``sha256`` are None if the deployment has no such file. ``layers`` is how many layers
    TensorRT put into each precision, read back from the engine; None for other backends.
    ``converter`` is what the converter of its backend said of itself, versions above all; None
    where the graph itself is the engine, or TensorRT's.
    """

    segment: str
    backend: str
    parts: tuple[str, ...]
    device: int
    lane: int
    file: str
    bytes: int | None
    sha256: str | None
    layers: Mapping[str, int] | None
    converter: Mapping[str, Any] | None


@dataclass(frozen=True, kw_only=True)
class PlanEngines:
    """The engines of one plan, by device and lane. ``error`` says why they cannot be told.

    ``threads`` None: every core that the process may use (CPU), or no such limit (GPU).
    """

    backend: str | None
    threads: int | None
    max_batch: int | None
    engines: tuple[Engine, ...]
    error: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {**asdict(self), "engines": [asdict(engine) for engine in self.engines]}


def find_engines(deployment: Deployment, key: str) -> PlanEngines:
    """Read what a plan says of its engines; engine files themselves are not opened.

    Args:
        deployment: Opened.
        key: One of its plans.
    """
    folder = f"plans/{key}"
    try:
        plan = Plan.from_json(json.loads(deployment.read_bytes(f"{folder}/{PLAN_FILE}")))
    except (DeploymentError, ValueError, RecursionError) as error:
        return PlanEngines(backend=None, threads=None, max_batch=None, engines=(), error=str(error))
    found = []
    for segment in plan.placement.segments:
        file = plan.engines[segment.name]
        about = deployment.artifacts.get(f"{folder}/{file}", {})
        found.append(
            Engine(
                segment=segment.name,
                backend=plan.homes[segment.name],
                parts=segment.parts,
                device=segment.device,
                lane=segment.lane,
                file=file,
                bytes=about.get("bytes"),
                sha256=about.get("sha256"),
                layers=_layers(entry(plan.made, "engines", segment.name)),
                converter=mapping(plan.made, "engines", segment.name, "converter") or None,
            )
        )
    return PlanEngines(
        backend=plan.backend,
        threads=plan.threads,
        max_batch=plan.max_batch,
        engines=tuple(sorted(found, key=lambda engine: (engine.device, engine.lane))),
    )


def _layers(record: object) -> Mapping[str, int] | None:
    found = {name: count for name, count in mapping(record, "layers").items() if type(count) is int}
    return found or None
