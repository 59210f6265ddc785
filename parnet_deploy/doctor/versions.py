"""Versions of packages: read, and compared as numbers, which is all that conflicts need."""

from __future__ import annotations

import re
from importlib import metadata

Version = tuple[int, ...]


def installed(package: str) -> str | None:
    """Version of an installed package."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def numbers(text: str) -> Version:
    """``1.26.0rc1+cpu`` -> (1, 26, 0): the numbers of the release; no suffix counts."""
    found = re.match(r"\d+(\.\d+)*", text)
    return tuple(int(part) for part in found[0].split(".")) if found else ()


def within(text: str, low: str | None, high: str | None) -> bool:
    """Whether low <= version < high; None leaves a side open. (1, 84) is (1, 84, 0)."""
    version = _padded(numbers(text))
    return (low is None or version >= _padded(numbers(low))) and (
        high is None or version < _padded(numbers(high))
    )


def _padded(version: Version) -> Version:
    return (version + (0,) * 4)[:4]
