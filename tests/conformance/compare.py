"""Whether two servers answer alike: the same values, and errors of the same class."""

from __future__ import annotations

import math
import re
from typing import Any

TOLERANCE = 1e-4
"""Of the largest value of a tensor."""

_CLASS = re.compile(r"(-?[0-9.]+):([0-9]+)(:.*)?")


def difference(ours: Any, theirs: Any) -> str | None:
    """What differs between two outcomes of a probe; None if nothing does."""
    if ("error" in ours) != ("error" in theirs):
        return f"ours {_short(ours)}, theirs {_short(theirs)}"
    if "error" in ours:
        same = ours["error"] == theirs["error"]
        return None if same else f"ours {_short(ours)}, theirs {_short(theirs)}"
    return _values(ours["answer"], theirs["answer"], "answer")


def _values(ours: Any, theirs: Any, where: str) -> str | None:
    if isinstance(ours, dict) and isinstance(theirs, dict):
        if set(ours) != set(theirs):
            return f"{where}: keys {sorted(ours)}, theirs {sorted(theirs)}"
        if "values" in ours and "dtype" in ours:
            return _tensor(ours, theirs, where)
        found = (_values(ours[key], theirs[key], f"{where}.{key}") for key in ours)
        return next((text for text in found if text), None)
    if isinstance(ours, list) and isinstance(theirs, list):
        if len(ours) != len(theirs):
            return f"{where}: {len(ours)} entries, theirs {len(theirs)}"
        pairs = enumerate(zip(ours, theirs, strict=True))
        found = (_values(a, b, f"{where}[{i}]") for i, (a, b) in pairs)
        return next((text for text in found if text), None)
    same = type(ours) is type(theirs) and ours == theirs
    return None if same else f"{where}: {_short(ours)}, theirs {_short(theirs)}"


def _tensor(ours: dict[str, Any], theirs: dict[str, Any], where: str) -> str | None:
    for key in ("dtype", "shape"):
        if ours[key] != theirs[key]:
            return f"{where}: {key} {ours[key]}, theirs {theirs[key]}"
    mine, other = ours["values"], theirs["values"]
    if ours["dtype"] == "BYTES":
        return _classes(mine, other, where)
    return _close(mine, other, where)


def _classes(ours: list[str], theirs: list[str], where: str) -> str | None:
    """Strings "value:index[:label]": index and label equal, values close."""
    pairs = [(_CLASS.fullmatch(a), _CLASS.fullmatch(b)) for a, b in zip(ours, theirs, strict=True)]
    values: tuple[list[float], list[float]] = ([], [])
    for a, b in pairs:
        if a is None or b is None or a.groups()[1:] != b.groups()[1:]:
            return f"{where}: classes {ours}, theirs {theirs}"
        if len(a[1].partition(".")[2]) != len(b[1].partition(".")[2]):
            return f"{where}: digits of {a[0]}, theirs {b[0]}"
        values[0].append(float(a[1]))
        values[1].append(float(b[1]))
    return _close(*values, where)


def _close(ours: list[float], theirs: list[float], where: str) -> str | None:
    if len(ours) != len(theirs):
        return f"{where}: {len(ours)} values, theirs {len(theirs)}"
    largest = max((abs(value) for value in theirs if math.isfinite(value)), default=0.0)
    for index, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        if math.isnan(a) and math.isnan(b):
            continue
        if not abs(a - b) <= TOLERANCE * largest:
            return f"{where}[{index}]: {a}, theirs {b} (largest {largest})"
    return None


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 300 else f"{text[:300]}..."
