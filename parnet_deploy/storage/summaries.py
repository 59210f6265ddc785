"""What the manifest says of the checkpoint and the plans; fields may be missing, not be wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

MAX_MEDIAN_MS = 1e9

Check = Callable[[Any], bool]
Rules = Mapping[str, tuple[Check, str]]


def check_source(source: Mapping[str, Any]) -> None:
    """Check the fields of ``source`` that are there.

    Raises:
        ValueError: With the first that has a wrong type.
    """
    _check(source, _SOURCE, "source ")
    if "activation" in source:
        _check(source["activation"], _ACTIVATION, "source activation ", complete=True)


def check_plan(key: str, plan: object, steps: Mapping[str, Any]) -> None:
    """Check a plan's step and those of its other fields that are there.

    Raises:
        ValueError: With the first that is wrong.
    """
    step = plan.get("step") if isinstance(plan, dict) else None
    if not isinstance(plan, dict) or not isinstance(step, str) or step not in steps:
        raise ValueError(f"plan {key}: got {plan!r}, expected an object with its step.")
    _check(plan, _PLAN, f"plan {key} ")


def _check(data: Mapping[str, Any], rules: Rules, where: str, *, complete: bool = False) -> None:
    for name, (good, expected) in rules.items():
        if name not in data:
            if complete:
                raise ValueError(f"{where}{name}: got nothing, expected {expected}.")
        elif not good(data[name]):
            raise ValueError(f"{where}{name}: got {data[name]!r}, expected {expected}.")


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0  # not isinstance: True is no number


def _is_median(value: Any) -> bool:
    return value is None or (type(value) in (int, float) and 0 <= value <= MAX_MEDIAN_MS)


def _list_of(good: Check) -> Check:
    return lambda value: isinstance(value, list) and all(map(good, value))


_TEXT = (_is_text, "text")
_OBJECT = (lambda value: isinstance(value, dict), "an object")
_SOURCE: Rules = {
    "path": _TEXT,
    "sha256": _TEXT,
    "layout": _TEXT,
    "weights": _TEXT,
    "parameters": (_is_count, "a whole number"),
    "activation": _OBJECT,
    "training_args": _OBJECT,
    "notes": (_list_of(_is_text), "a list of texts"),
}
_ACTIVATION: Rules = {
    "activation": _TEXT,
    "decided_by": (lambda value: value in ("weights", "option"), "weights or option"),
    "evidence": _TEXT,
}
_PLAN: Rules = {
    "backend": _TEXT,
    "placement": _TEXT,
    "built": _TEXT,
    "precision": _TEXT,
    "threads": (lambda value: value is None or _is_count(value), "a whole number or null"),
    "devices": (_list_of(_is_count), "a list of whole numbers"),
    "median_ms": (_is_median, f"null or a number from 0 to {MAX_MEDIAN_MS:g}"),
}
