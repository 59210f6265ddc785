"""Holds InferenceService files against KServe's and Kubernetes' own classes: keys and types."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import yaml
from kserve import models
from kubernetes import client

PLAIN = {"str": str, "int": int, "bool": bool, "float": (int, float), "object": object}


def problems(value: Any, kind: str, where: str) -> list[str]:
    """What of a value is not of the type that a class of the generated clients declares."""
    listed, mapped = re.fullmatch(r"list\[(.+)\]", kind), re.fullmatch(r"dict\(str, (.+)\)", kind)
    if listed:
        if not isinstance(value, list):
            return [f"{where}: no list"]
        return [p for item in value for p in problems(item, listed[1], f"{where}[]")]
    if mapped:
        if not isinstance(value, dict):
            return [f"{where}: no object"]
        return [p for key in value for p in problems(value[key], mapped[1], f"{where}.{key}")]
    if kind in PLAIN:
        return [] if isinstance(value, PLAIN[kind]) else [f"{where}: {value!r} is no {kind}"]
    if hasattr(models, kind):
        return of_kserve(value, getattr(models, kind), where)
    return of_kubernetes(value, getattr(client, kind), where)


def of_kserve(value: Any, kind: Any, where: str) -> list[str]:
    """Against a class with ``openapi_types`` and ``attribute_map``."""
    if not isinstance(value, dict):
        return [f"{where}: no object"]
    kinds = {kind.attribute_map[name]: kind.openapi_types[name] for name in kind.openapi_types}
    found = [f"{where}.{key}: unknown to {kind.__name__}" for key in value if key not in kinds]
    inner = (problems(value[key], kinds[key], f"{where}.{key}") for key in value if key in kinds)
    return found + [p for each in inner for p in each]


def of_kubernetes(value: Any, kind: Any, where: str) -> list[str]:
    """Against a pydantic class; what it does not read back was unknown or of another type."""
    try:
        read = kind.from_dict(value).model_dump(by_alias=True, exclude_none=True)
    except Exception as error:
        return [f"{where}: {str(error)[:200]}"]
    return lost(value, read, where)


def lost(given: Any, read: Any, where: str) -> list[str]:
    """Entries that were not read back as they were given."""
    if isinstance(given, dict) and isinstance(read, dict):
        found = [f"{where}.{key}: unknown" for key in given if key not in read]
        inner = (lost(given[key], read[key], f"{where}.{key}") for key in given if key in read)
        return found + [p for each in inner for p in each]
    if isinstance(given, list) and isinstance(read, list) and len(given) == len(read):
        return [p for a, b in zip(given, read, strict=True) for p in lost(a, b, f"{where}[]")]
    return [] if given == read else [f"{where}: {given!r} was read as {read!r}"]


found = []
for name in sys.argv[1:]:
    service = yaml.safe_load(Path(name).read_text(encoding="utf-8"))
    problem = problems(service, "V1beta1InferenceService", "service")
    found.append({"service": service, "problems": problem})
json.dump(found, sys.stdout)
