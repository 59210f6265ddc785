"""TensorRT's log: one logger for the process, the last messages kept, all passed to ``logging``.

TensorRT returns None or False where it fails and says why in its log only; the ring of the last
messages is what errors of this package quote.
"""

from __future__ import annotations

import itertools
import logging
import threading
from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

from ...errors import BackendError, OutOfMemoryError

KEPT = 200
LOGGER = logging.getLogger("parnet_deploy.tensorrt")

_LEVELS = {
    "INTERNAL_ERROR": logging.ERROR,
    "ERROR": logging.ERROR,
    "WARNING": logging.WARNING,
    "INFO": logging.DEBUG,
    "VERBOSE": logging.DEBUG,
}
_OUT_OF_MEMORY = ("out of memory", "out_of_memory", "outofmemory", "insufficient memory")


class LogLine(NamedTuple):
    """One message; ``number`` counts from 1, ``severity`` is TensorRT's word for it."""

    number: int
    severity: str
    text: str


_ring: deque[LogLine] = deque(maxlen=KEPT)
_numbers = itertools.count(1)
_lock = threading.Lock()
_loggers: dict[int, tuple[Any, Any]] = {}  # by id of the module, which is kept alive with it


def make_logger(trt: Any) -> Any:
    """The ``ILogger`` of this process, made at the first call: TensorRT keeps its first one too.

    Owns: it lives as long as the process; TensorRT may call it from any of its threads.
    """
    with _lock:
        if id(trt) not in _loggers:
            _loggers[id(trt)] = (trt, _logger_class(trt)())
        return _loggers[id(trt)][1]


def add_line(severity: str, text: str) -> None:
    """Keep a message and pass it on: warnings and errors at their level, the rest as debug."""
    if severity != "VERBOSE":  # thousands in a build, which would push out what matters
        with _lock:
            _ring.append(LogLine(next(_numbers), severity, text))
    LOGGER.log(_LEVELS.get(severity, logging.ERROR), "%s", text)


def log_position() -> int:
    """Where the log stands, for ``log_tail`` to begin behind it."""
    with _lock:
        return _ring[-1].number if _ring else 0


def log_tail(since: int = 0, *, lines: int = 20, severe: bool = True) -> list[str]:
    """The last messages after a position, oldest first.

    Args:
        since: A ``log_position``.
        lines: At most so many.
        severe: Only warnings and errors.
    """
    with _lock:
        kept = [line for line in _ring if line.number > since]
    found = [line for line in kept if not severe or _LEVELS.get(line.severity) != logging.DEBUG]
    return [f"{line.severity.lower()}: {line.text}" for line in found[-lines:]]


def failure(kind: type[BackendError], what: str, cure: str, *, since: int = 0) -> BackendError:
    """An error that quotes the log; ``OutOfMemoryError`` where the log speaks of memory.

    Args:
        kind: The class for every other reason.
        what: ``<what> <where>: got <x>, expected <y>``, without a full stop.
        cure: The next step, a whole sentence.
        since: The ``log_position`` before the call that failed.
    """
    said = log_tail(since)
    if lacks_memory(said):
        kind = OutOfMemoryError
        cure = "Free memory of the GPU (other processes, fewer slots, a smaller max batch)."
    return kind(f"{what}. TensorRT says: {quote(said)} {cure}")


def lacks_memory(said: Sequence[str]) -> bool:
    """Whether messages say that memory ran out. Warnings do not count: tactics may be skipped."""
    errors = (line.lower() for line in said if not line.startswith("warning"))
    return any(word in line for line in errors for word in _OUT_OF_MEMORY)


def quote(said: Sequence[str]) -> str:
    """Messages in one line of an error text; says so if there are none."""
    return " | ".join(" ".join(line.split()) for line in said) + "." if said else "nothing."


def _logger_class(trt: Any) -> Any:
    class ParnetLogger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)  # the bindings demand this spelling

        def log(self, severity: Any, msg: str) -> None:
            add_line(severity.name, str(msg))

    return ParnetLogger
