"""Errors as C sees them: a status that a program can act on, and a message for people."""

from __future__ import annotations

import traceback
from enum import IntEnum

from ..errors import (
    BackendError,
    CheckFailedError,
    DeploymentError,
    DeviceLostError,
    InputError,
    SpecError,
)

MESSAGE_BYTES = 4000
"""Longer messages are cut; the library's buffer has room for these and the final zero."""


class Status(IntEnum):
    """``parnet_status`` in the header: the same names, the same values."""

    OK = 0
    INPUT = 1
    DEPLOYMENT = 2
    BACKEND = 3
    DEVICE_LOST = 4
    CHECK_FAILED = 5
    PYTHON = 6
    INTERNAL = 7


STATUSES: tuple[tuple[type[Exception], Status], ...] = (
    (InputError, Status.INPUT),
    (SpecError, Status.INPUT),  # an option that cannot be
    (DeploymentError, Status.DEPLOYMENT),
    (DeviceLostError, Status.DEVICE_LOST),
    (BackendError, Status.BACKEND),
    (CheckFailedError, Status.CHECK_FAILED),
)
"""The first row that fits counts. Anything else is a bug."""


def explain(error: Exception) -> tuple[Status, bytes]:
    """Status and message of an exception; a bug keeps its traceback, as everywhere.

    Returns: The message is UTF-8, of ``MESSAGE_BYTES`` at most.
    """
    for kind, status in STATUSES:
        if isinstance(error, kind):
            return status, _utf8(str(error))
    lines = traceback.format_exception(error)
    return Status.INTERNAL, _utf8("".join([lines[-1], *lines[:-1]]).rstrip())


def _utf8(text: str) -> bytes:
    """Without half a character at the end; a file's name may hold bytes that are not UTF-8."""
    data = text.encode("utf-8", "backslashreplace")[:MESSAGE_BYTES]
    return data.decode("utf-8", "ignore").encode("utf-8")
