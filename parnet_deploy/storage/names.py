"""Which names may occur in a deployment: artifacts, steps, plans; and the package's own files."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

MANIFEST = "deployment.json"
SIGNATURE = "deployment.sig"
JOURNAL = ".journal.json"
LOCK = ".lock"
LOCK_HOLDER = ".lock-holder"
STAGING_PREFIX = ".staging-"
SEARCH_PREFIX = ".search-"
"""Of files that keep the progress of a precision search; no artifacts, and never needed."""

STEP_KINDS = ("fuse", "export", "calibrate", "quantize", "build", "verify", "bench")
"""Kinds of steps, each after those that it may be made from. A step is a kind, or kind:variant."""

_COMPONENT = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._+=@,-]*[A-Za-z0-9_+=@,-])?\Z")
_DEVICE = re.compile(r"(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\.|\Z)", re.IGNORECASE)
_STAGING = re.compile(re.escape(STAGING_PREFIX) + r"[0-9a-f]{16}\Z")
_MAX_LENGTH = 200
_OWN = {MANIFEST: "it is the manifest", SIGNATURE: "it is the signature"}


def artifact_problem(name: str) -> str | None:
    """Why this cannot be an artifact's path inside the deployment; None if it can.

    Only plain relative paths that mean the same on every file system: no "..", no leading dot
    (those names are the package's own), no backslash, no drive, no space at the end, no name that
    is a device on Windows.
    """
    own = _OWN.get(name.casefold())
    if own is not None:
        return own
    if len(name) > _MAX_LENGTH:
        return f"it is longer than {_MAX_LENGTH} characters"
    if all(map(_is_component, name.split("/"))):
        return None
    return "expected a relative path of letters, digits and . _ + = @ , - inside the deployment"


def clash(names: Iterable[str]) -> str | None:
    """A name that cannot stand beside another one: differs in case only, or is its directory."""
    seen: dict[str, str] = {}
    for name in sorted(names):
        other = seen.setdefault(name.casefold(), name)
        if other != name:
            return f"{name} and {other}"
    for name in seen:
        parts = name.split("/")
        for depth in range(1, len(parts)):
            if "/".join(parts[:depth]) in seen:
                return f"{seen[name]} and {seen['/'.join(parts[:depth])]}"
    return None


def is_plan_key(key: str) -> bool:
    """Whether this may name a plan (it is also a directory name)."""
    return len(key) <= _MAX_LENGTH and _is_component(key)


def is_staging(name: str) -> bool:
    """Whether this is a directory name that a transaction gives to its staging area."""
    return _STAGING.match(name) is not None


def step_kind(step: str) -> str:
    """The kind of a step, which stands before its variant."""
    return step.partition(":")[0]


def step_rank(step: str) -> int | None:
    """Position of the step's kind in ``STEP_KINDS``; None if this cannot name a step."""
    kind, _, variant = step.partition(":")
    valid = kind in STEP_KINDS and (":" not in step or is_plan_key(variant))
    return STEP_KINDS.index(kind) if valid else None


def is_inside(root: Path, name: str) -> bool:
    """Whether the file, symbolic links followed, lies inside the deployment."""
    return (root / name).resolve().is_relative_to(root.resolve())


def _is_component(part: str) -> bool:
    return _COMPONENT.match(part) is not None and _DEVICE.match(part) is None
