"""How a refusal shows what the client sent: short, on one line, nothing executed or expanded."""

from __future__ import annotations

from typing import NoReturn

from .refusal import Kind, RefusedError

_LONGEST = 64
"""Characters of a client's text that an error repeats."""


def shown(value: object) -> str:
    """A value from a request, for an error message: texts quoted and cut, containers counted."""
    if isinstance(value, str):
        return repr(value) if len(value) <= _LONGEST else f"{value[:_LONGEST]!r}..."
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, list):
        return f"a list of {len(value)}"
    if isinstance(value, dict):
        return f"an object of {len(value)} keys"
    return type(value).__name__


def shown_shape(shape: tuple[int, ...]) -> str:
    """A shape as the protocol writes it: ``[1,3,224,224]``."""
    return f"[{','.join(map(str, shape))}]"


def refuse(what: str, *, got: str, expected: str, step: str, kind: Kind = "invalid") -> NoReturn:
    """Refuse a request in the words of this house.

    Raises:
        RefusedError: Always.
    """
    raise RefusedError(kind, f"{what}: got {got}, expected {expected}. {step}.")
