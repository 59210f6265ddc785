"""Reads reports of a deployment as far as they are there: what is damaged shows up as absent.

``Deployment.verify`` tells which files are missing or changed; a look at the rest goes on.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from .deployment import Deployment
from .errors import DeploymentError


def read_json(deployment: Deployment, name: str) -> Mapping[str, Any]:
    """A JSON report; empty if there is none, it was changed, or it is no JSON object."""
    if name not in deployment.artifacts:
        return {}
    try:
        found = json.loads(deployment.read_bytes(name))
    except (DeploymentError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def entry(data: object, *path: str) -> Any:
    """An entry of nested mappings; None where there is none."""
    for key in path:
        if not isinstance(data, Mapping):
            return None
        data = data.get(key)
    return data


def mapping(data: object, *path: str) -> Mapping[str, Any]:
    """A mapping among nested mappings; empty where there is none."""
    found = entry(data, *path)
    return found if isinstance(found, Mapping) else {}


def listing(data: object, *path: str) -> list[Any]:
    """A list among nested mappings; empty where there is none."""
    found = entry(data, *path)
    return found if isinstance(found, list) else []


def rows(data: object, *path: str) -> list[Mapping[str, Any]]:
    """The mappings of a list among nested mappings; empty where there is none."""
    return [row for row in listing(data, *path) if isinstance(row, Mapping)]


def number(data: object, *path: str) -> float | None:
    """A finite number among nested mappings; None where there is none."""
    found = entry(data, *path)
    if isinstance(found, bool) or not isinstance(found, int | float):
        return None
    try:
        value = float(found)
    except OverflowError:
        return None
    return value if math.isfinite(value) else None
