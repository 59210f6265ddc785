"""A model's directory in a Triton repository: written whole or not at all, and only over our own.

``parnet-deploy.json`` in it is the record: what was exported, and the sha256 of every file. Triton
does not look at it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..errors import DeploymentError
from ..storage.document import MAX_DOCUMENT_BYTES, seal, unseal
from ..storage.files import fsync_path, hash_file
from ..storage.scratch import scratch_folder

RECORD = "parnet-deploy.json"
EXPORT_SCHEMA = 1

_IGNORED = "__pycache__"  # Python leaves it beside model.py when Triton imports that


def read_export(model: Path) -> Mapping[str, Any] | None:
    """The record of what was exported here before, checked file by file; None if there is nothing.

    Raises:
        DeploymentError: Something is there that this package did not write, or that was changed
            since: it is not to be overwritten.
    """
    if not os.path.lexists(model):
        return None
    where = f"model directory {model}"
    try:
        if model.is_symlink() or not model.is_dir():
            raise _foreign(where, "something that is no directory")
        path = model / RECORD
        if not path.is_file():
            raise _foreign(where, f"a directory without {RECORD}")
        with path.open("rb") as file:
            raw = file.read(MAX_DOCUMENT_BYTES + 1)
        record = unseal(raw, f"export {path}", schema_version=EXPORT_SCHEMA)
        files: Mapping[str, Any] = record["files"]
        there = set(_files(model)) - {RECORD}
        changed = sorted(there ^ set(files))
        same = (name for name in files if name in there)
        changed += [name for name in same if hash_file(model / name)[0] != files[name]]
    except OSError as error:
        raise _unreadable(where, error) from error
    if changed:
        raise _foreign(where, f"files that were changed since: {', '.join(changed[:5])}")
    return record


def write_model(
    model: Path, fill: Callable[[Path], None], record: Mapping[str, Any]
) -> Mapping[str, Any]:
    """Make the model's directory anew; what was there before stays until the new one is whole.

    Args:
        model: The directory; its parent is the repository, which is made if missing.
        fill: Writes the files into the folder that it gets.
        record: What goes into the record beside the hashes.

    Returns: The record.

    Raises:
        DeploymentError: The disk is full or not writable; what was there before is there again.
    """
    try:
        model.parent.mkdir(parents=True, exist_ok=True)
        with scratch_folder(".parnet-deploy-", model.parent) as place:
            new, old = place / "new", place / "old"
            new.mkdir()
            fill(new)
            files = {name: hash_file(new / name)[0] for name in _files(new)}
            found = {**record, "schema_version": EXPORT_SCHEMA, "files": files}
            (new / RECORD).write_bytes(seal(found))
            _to_disk(new)
            _swap(new, model, old)
            fsync_path(model.parent)
    except OSError as error:
        raise _unwritable(model, error) from error
    return found


def _swap(new: Path, model: Path, old: Path) -> None:
    """Two renames: for an instant the model is missing, never half there."""
    replaced = model.exists()
    if replaced:
        model.rename(old)
    try:
        new.rename(model)
    except OSError:
        if replaced:
            old.rename(model)
        raise


def _files(folder: Path) -> list[str]:
    paths = (path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    names = (path.relative_to(folder) for path in paths)
    return sorted(name.as_posix() for name in names if _IGNORED not in name.parts)


def _to_disk(folder: Path) -> None:
    for path in (*folder.rglob("*"), folder):
        fsync_path(path)


def _foreign(where: str, got: str) -> DeploymentError:
    return DeploymentError(
        f"{where}: got {got}, expected nothing, or what export-triton wrote. "
        "Move it away, or choose another directory with --to."
    )


def _unreadable(where: str, error: OSError) -> DeploymentError:
    reason = error.strerror or error
    return DeploymentError(
        f"{where}: got {reason}, expected a readable directory. Check its permissions, or choose "
        "another one with --to."
    )


def _unwritable(model: Path, error: OSError) -> DeploymentError:
    name = error.filename if error.filename2 is None else error.filename2
    at = "" if name is None else f" {name}"
    return DeploymentError(
        f"model directory {model}: cannot write{at}: got {error.strerror or error}, expected a "
        "writable disk with room. Nothing was published. Remove the cause, or choose another "
        "directory with --to."
    )
