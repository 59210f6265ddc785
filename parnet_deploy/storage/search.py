"""Which deployment a command means."""

from __future__ import annotations

import difflib
import os
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import NamedTuple

from ..errors import DeploymentError, DeploymentNotFoundError
from . import names
from .manifest import load_manifest

CLOCKS_DIFFER = timedelta(hours=1)


class Found(NamedTuple):
    """A deployment's directory, and why this one (a sentence for the user)."""

    path: Path
    reason: str


def find_deployment(name: str | None, root: Path) -> Found:
    """Resolve a name in ``root``, a path, or nothing: the only deployment, else the last written.

    Raises:
        DeploymentNotFoundError: None there, or several of which none is known to be the last.
    """
    known = _known(root)
    if name is not None:
        return _named(name, root, known)
    if not known:
        raise DeploymentNotFoundError(
            f"deployment in {root}: got none, expected one. Run: parnet-deploy fuse model.pt."
        )
    if len(known) == 1:
        return Found(known[0], f"{known[0].name}: the only deployment in {root}")
    written: dict[Path, str] = {}
    for path in known:
        try:
            written[path] = load_manifest(path).written
        except DeploymentError:
            raise _ambiguous(root, known, f"{path.name} cannot be read") from None
    to_come = [path for path in known if written[path] > _soon()]
    if 0 < len(to_come) < len(known):  # some clock was wrong, so the order is not known
        raise _ambiguous(root, known, f"{to_come[0].name} was written at a time still to come")
    last = max(known, key=lambda path: written[path])
    if sum(time == written[last] for time in written.values()) > 1:
        raise _ambiguous(root, known, "several were written last, at the same time")
    return Found(last, f"{last.name}: the last written of {len(known)} deployments in {root}")


def _soon() -> str:
    """The latest time that a clock may show that is not wrong."""
    return (datetime.now(timezone.utc) + CLOCKS_DIFFER).isoformat(timespec="microseconds")


def _known(root: Path) -> list[Path]:
    try:
        return sorted(path for path in root.iterdir() if _is_deployment(path))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise DeploymentError(
            f"deployments in {root}: got {error}, expected a readable directory. "
            "Check its permissions."
        ) from error


def _is_deployment(path: Path) -> bool:
    # os.path, for pathlib raises on what cannot be a file name
    return any(os.path.isfile(path / name) for name in (names.MANIFEST, names.JOURNAL))


def _named(name: str, root: Path, known: list[Path]) -> Found:
    plain = names.is_plan_key(name)  # a plain word is looked up in root first
    if plain and root / name in known:
        return Found(root / name, f"{name}: the deployment of this name in {root}")
    path = Path(name).parent if Path(name).name == names.MANIFEST else Path(name)
    if _is_deployment(path):
        return Found(path, f"{path}: the deployment at this path")
    near = difflib.get_close_matches(name, [path.name for path in known], n=1)
    listed = ", ".join(path.name for path in known) or "none"
    advice = f"Did you mean {near[0]}?" if near else "Run: parnet-deploy fuse model.pt."
    raise DeploymentNotFoundError(
        f"deployment {name}: got no {names.MANIFEST} there, expected a path or a name in {root} "
        f"(known: {listed}). {advice}"
    )


def _ambiguous(root: Path, known: list[Path], why: str) -> DeploymentNotFoundError:
    listed = ", ".join(path.name for path in known)
    return DeploymentNotFoundError(
        f"deployment in {root}: got {len(known)} ({listed}; {why}), expected a name. "
        f"Name one, for example: parnet-deploy inspect {known[0].name}."
    )
