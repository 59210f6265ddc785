"""The model card: what a person should know of the model that answers, as plain JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from ...deployment import Deployment
from ...errors import DeploymentError

_REPORTS = ("fuse", "export", "verify", "bench", "calibrate")
_LONGEST = 16  # entries of a list that a card still shows
_FOLDER = re.compile(r"(?<!\S)/(?:[^\s/,]+/)+")


def model_card(
    found: Deployment, about: Mapping[str, Any], *, accepts: tuple[str, ...]
) -> dict[str, Any]:
    """Everything about a deployment that runs. No path of this machine is in it.

    Args:
        found: The deployment.
        about: ``Runtime.describe`` of it.
        accepts: Names of the inputs.

    Returns: name, digest, written, network, classes, labels, input_size, max_batch, inputs,
        preprocessing, source, running (plan, backend, placement, precision, median_ms, canary,
        program, facts) and evidence (what the reports in it say, long lists left out).
    """
    keys = ("plan", "backend", "placement", "precision", "median_ms", "program", "facts")
    running = {key: about.get(key) for key in keys}
    return {
        "name": found.name,
        "digest": found.digest,
        "written": found.written,
        "network": found.spec.to_json(),
        "classes": found.spec.num_classes,
        "labels": None if found.labels is None else list(found.labels),
        "input_size": about["input_size"],
        "max_batch": about["max_batch"],
        "inputs": list(accepts),
        "preprocessing": found.preprocessing and dict(found.preprocessing),
        "source": _source(found.source),
        "running": {**running, "canary": _canary(about.get("canary"))},
        "evidence": _evidence(found),
    }


def _source(source: Mapping[str, Any]) -> dict[str, Any]:
    keys = ("sha256", "layout", "weights", "parameters", "activation")
    return {key: source[key] for key in keys if key in source}


def _canary(found: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """How far the engines were from their reference when they were opened."""
    return None if found is None else {k: v for k, v in found.items() if k != "what"}


def _evidence(found: Deployment) -> dict[str, Any]:
    """The reports of the steps; of one that cannot be read, that it cannot."""
    evidence: dict[str, Any] = {}
    names = [f"reports/{name}.json" for name in _REPORTS]
    names += sorted(
        name
        for name in found.artifacts
        if name.startswith("reports/precision-") and name.endswith(".json")
    )
    for name in names:
        if name not in found.artifacts:
            continue
        key = name.removeprefix("reports/").removesuffix(".json")
        try:
            evidence[key] = _shorten(json.loads(found.read_bytes(name)))
        except (DeploymentError, ValueError):
            evidence[key] = {"unreadable": "the file is missing or was changed"}
    return evidence


def _shorten(value: Any) -> Any:
    """Plain JSON without long lists, such as samples, and without the folders of a machine."""
    if isinstance(value, Mapping):
        kept = {k: v for k, v in value.items() if not (isinstance(v, list) and len(v) > _LONGEST)}
        return {key: _shorten(item) for key, item in kept.items()}
    if isinstance(value, list):
        return [_shorten(item) for item in value]
    return _FOLDER.sub("", value) if isinstance(value, str) else value
