"""What came of many calls, counted; processes add theirs up."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

_KEPT = 20


@dataclass
class Tally:
    """Counts, and the first descriptions of what must not be.

    ``wrong``: an answer that is not the sequential network's. ``unexpected``: an error where none
    may be, or something that was left behind.
    """

    worlds: Counter[str] = field(default_factory=Counter)
    runs: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    cancelled: int = 0
    wrong: int = 0
    unexpected: int = 0
    details: list[str] = field(default_factory=list)

    @property
    def total(self) -> int:
        """Calls that were answered, rightly or not, or raised."""
        return sum(self.runs.values())

    @property
    def holds(self) -> bool:
        """Whether nothing was wrong or unexpected."""
        return not self.wrong and not self.unexpected

    def complain(self, *, wrong: bool, text: str) -> None:
        """Count what must not be."""
        if wrong:
            self.wrong += 1
        else:
            self.unexpected += 1
        if len(self.details) < _KEPT:
            self.details.append(text)

    def add(self, other: Tally) -> None:
        """Add another tally to this one."""
        self.worlds += other.worlds
        self.runs += other.runs
        self.errors += other.errors
        self.cancelled += other.cancelled
        self.wrong += other.wrong
        self.unexpected += other.unexpected
        self.details = (self.details + other.details)[:_KEPT]

    def to_json(self) -> dict[str, Any]:
        """Everything, as plain JSON types."""
        return {
            "runs": self.total,
            "wrong": self.wrong,
            "unexpected": self.unexpected,
            "runs_by_way": dict(sorted(self.runs.items())),
            "worlds_by_kind": dict(sorted(self.worlds.items())),
            "errors": dict(sorted(self.errors.items())),
            "cancelled": self.cancelled,
            "details": self.details,
        }
