"""What a verdict is made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Mood = Literal["good", "care", "bad", "none"]
"""How it stands: as it should, to be taken with care, not as it should, not known."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The answer to one question of a reader: a sentence or two, and what else there is to say."""

    question: str
    mood: Mood
    text: str
    more: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class NextStep:
    """A command and what it is good for."""

    command: str
    why: str


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The whole verdict. ``care`` is why the figures are to be taken with care: said first."""

    care: tuple[str, ...]
    right: Answer
    fast: Answer
    why: Answer
    steps: tuple[NextStep, ...]

    @property
    def answers(self) -> tuple[Answer, Answer, Answer]:
        """Right, fast, why."""
        return self.right, self.fast, self.why
