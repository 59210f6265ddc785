"""Sealed JSON: one rendering per content, carrying its own sha256.

The seal finds edits, flipped bytes and truncation. It is no signature: whoever can write the file
can seal it again.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any, NoReturn

from ..errors import DeploymentCorruptError, DeploymentError

MAX_DOCUMENT_BYTES = 16 * 1024 * 1024
"""No manifest or journal is larger; a limit, so that a wrong file is refused before it is read."""

_RESTORE = "Restore the directory from a copy, or remove it and run: parnet-deploy fuse model.pt"


def canonical(data: Any) -> bytes:
    """The one compact JSON spelling of plain data: sorted keys, ASCII, no spaces.

    Raises:
        TypeError: Not JSON: another type, or a key that is not a string.
        ValueError: NaN or an infinity.
    """
    return json.dumps(plain(data), sort_keys=True, separators=(",", ":")).encode("ascii")


def plain(data: Any, where: str = "data") -> Any:
    """Copy into dicts, lists and scalars only, so that reading back gives an equal object.

    Raises:
        TypeError: Not JSON: another type, or a key that is not a string.
        ValueError: NaN or an infinity.
    """
    if data is None or isinstance(data, (str, bool, int)):
        return data
    if isinstance(data, float):
        if not math.isfinite(data):
            raise ValueError(f"{where}: got {data!r}, expected a finite number.")
        return data
    if isinstance(data, Mapping):
        for key in data:
            if not isinstance(key, str):
                raise TypeError(f"{where}: got the key {key!r}, expected a string.")
        return {key: plain(value, f"{where}.{key}") for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [plain(value, f"{where}[{i}]") for i, value in enumerate(data)]
    raise TypeError(f"{where}: got {type(data).__name__}, expected a JSON value.")


def seal(data: Mapping[str, Any]) -> bytes:
    """Render a document, its digest included; ``unseal`` reads it back."""
    content = plain(data)
    sealed = {**content, "sha256": hashlib.sha256(canonical(content)).hexdigest()}
    return json.dumps(sealed, sort_keys=True, indent=1).encode("ascii") + b"\n"


def unseal(raw: bytes, where: str, *, schema_version: int) -> dict[str, Any]:
    """Read a sealed document; ``sha256`` stays in it.

    Raises:
        DeploymentCorruptError: The bytes are not the ones that ``seal`` wrote.
        DeploymentError: Another schema version.
    """
    try:
        data = json.loads(
            raw.decode("utf-8"), object_pairs_hook=_no_duplicates, parse_constant=_no_constant
        )
    except (ValueError, RecursionError) as error:
        raise DeploymentCorruptError(
            f"{where}: cannot read it: got {error}, expected sealed JSON. {_RESTORE}."
        ) from error
    if not isinstance(data, dict):
        raise DeploymentCorruptError(
            f"{where}: got a JSON {type(data).__name__}, expected an object. {_RESTORE}."
        )
    found = data.get("schema_version")
    if type(found) is not int or found != schema_version:
        raise DeploymentError(
            f"{where}: got schema version {found!r}, expected {schema_version}. "
            "Use the parnet-deploy release that wrote it, or build it again with this one."
        )
    content = {key: value for key, value in data.items() if key != "sha256"}
    try:
        intact = seal(content) == raw
    except ValueError:  # a number too large for a float reads as infinity
        intact = False
    if not intact:
        raise DeploymentCorruptError(
            f"{where}: got content that does not match its sha256, expected it as it was written "
            f"(it was edited, damaged or cut off). {_RESTORE}."
        )
    return data


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        twice = sorted({key for key, _ in pairs if sum(key == k for k, _ in pairs) > 1})
        raise ValueError(f"the key {twice[0]!r} twice")
    return result


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"the constant {name}")
