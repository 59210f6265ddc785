"""What the steps of a deployment have in common: results, reports, skipping what is current."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .deployment import Deployment
from .errors import DeploymentError
from .reference import REFERENCE, Reference

Progress = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """What a step did. ``report`` is also on disk; ``skipped`` if nothing had changed."""

    path: Path
    skipped: bool
    report: Mapping[str, Any]


def is_current(directory: Path, step: str, key: str) -> bool:
    """Whether the deployment is there and has this step, made with this key and unchanged."""
    try:
        return Deployment.open(directory).is_current(step, key)
    except DeploymentError:
        return False


def skipped(directory: Path, report: str, **newer: Any) -> StepResult:
    """The result of a step that had nothing to do; ``newer`` replaces entries of its report."""
    found = {**read_report(directory, report), **newer}
    return StepResult(path=directory, skipped=True, report=found)


def read_report(directory: Path, name: str) -> dict[str, Any]:
    """A JSON report of a deployment, checked against its hash."""
    report: dict[str, Any] = json.loads(Deployment.open(directory).read_bytes(name))
    return report


def read_reference(deployment: Deployment, name: str = REFERENCE) -> Reference:
    """The image and the logits that every engine is held against.

    Engines in lower precision have a reference of their own, which ``name`` says.

    Raises:
        DeploymentError: The deployment has none, or it was changed.
    """
    return Reference.unpack(deployment.read_bytes(name), str(deployment.path))


def write_report(path: Path, data: Mapping[str, Any]) -> None:
    """Write a report to a staged path; NaN is refused, for it is no JSON."""
    text = json.dumps(data, indent=1, sort_keys=True, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")
