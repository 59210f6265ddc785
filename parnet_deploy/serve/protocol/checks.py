"""What every name, id and list of tensors in a request is held against, on both wires."""

from __future__ import annotations

from collections.abc import Sequence

from .wording import refuse, shown

MAX_TEXT = 4096
"""Characters of a name, an id or a text among the parameters."""

MAX_TENSORS = 64
"""Inputs, and outputs, that one request may name."""


def check_text(what: str, found: object) -> str:
    """A text of the client's, if it is one and not too long to be carried about."""
    if not isinstance(found, str):
        refuse(what, got=shown(found), expected="a text", step="Send one")
    if len(found) > MAX_TEXT:
        got = f"{len(found)} characters"
        refuse(what, got=got, expected=f"at most {MAX_TEXT}", step="Shorten it")
    return found


def check_number(what: str, found: int, *, least: int) -> None:
    """How many inputs, or outputs, a request names."""
    if not least <= found <= MAX_TENSORS:
        expected = f"{least} to {MAX_TENSORS}"
        refuse(what, got=f"{found}", expected=expected, step="The model's metadata names them")


def check_names(what: str, names: Sequence[str]) -> None:
    """Names of inputs, or outputs: none may come twice."""
    if len(set(names)) != len(names):
        name = next(name for name in names if names.count(name) > 1)
        refuse(what, got=f"{shown(name)} twice", expected="each once", step="Send it once")
