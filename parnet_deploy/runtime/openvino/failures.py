"""OpenVINO's exceptions in our words."""

from __future__ import annotations

import re

from ...errors import BackendError, EngineLoadError, ExecutionError, OutOfMemoryError
from .engine_format import DAMAGED

ERRORS: tuple[tuple[type[Exception], type[BackendError], type[BackendError]], ...] = (
    # what OpenVINO raises, ours when loading, ours when running
    (MemoryError, OutOfMemoryError, OutOfMemoryError),
    (RuntimeError, EngineLoadError, ExecutionError),  # all that its C++ throws
    (TypeError, EngineLoadError, ExecutionError),
    *((kind, EngineLoadError, ExecutionError) for kind in DAMAGED),  # of the engine's file
)
"""The one place where OpenVINO's exceptions become ours; the first row that fits counts."""

CAUGHT = tuple(row[0] for row in ERRORS)
"""What OpenVINO raises, and what reading an engine's file does."""

_NO_MEMORY = re.compile(r"bad_alloc|[Ff]ailed to allocate|[Oo]ut of memory")
_LONGEST = 400


def load_error(error: Exception, what: str) -> BackendError:
    """Ours for an exception while a network is read or compiled."""
    return _kind(error, 1)(f"{what}: OpenVINO cannot load it: {reason(error)}")


def run_error(error: Exception, what: str) -> BackendError:
    """Ours for an exception while a request runs."""
    return _kind(error, 2)(f"{what}: OpenVINO: {reason(error)}")


def reason(error: Exception) -> str:
    """What the message says in one line, without the places in its source that it begins with."""
    lines = (line.strip() for line in str(error).splitlines())
    said = " ".join(line for line in lines if line and not line.startswith("Exception from "))
    return said[:_LONGEST] or type(error).__name__


def _kind(error: Exception, column: int) -> type[BackendError]:
    if _NO_MEMORY.search(str(error)):
        return OutOfMemoryError
    row = next(row for row in ERRORS if isinstance(error, row[0]))
    return row[1] if column == 1 else row[2]
