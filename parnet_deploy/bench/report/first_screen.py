"""What a reader sees first: is it right, how fast, why, what next."""

from __future__ import annotations

import re

from ...html import Html, join, tag
from ..result import BenchReport
from .answer import Answer, NextStep, Verdict
from .words import count_text, size_text

_FIGURE = re.compile(r"([0-9.]+e-[0-9]+)")
_MARKS = {"good": "\N{CHECK MARK}", "care": "!", "bad": "\N{BALLOT X}", "none": ""}


def draw_header(report: BenchReport) -> Html:
    """What was measured, in a line."""
    subject, environment = report["subject"], report["environment"]
    cores = environment.get("cores_usable")
    facts = (
        f"{subject['backend']}, {subject['precision']}, placement {subject['placement']}",
        f"batch {subject['batch']}, {size_text(subject['input_size'])}",
        f"{count_text(subject['macs'])} MACs",
        f"{environment.get('cpu', 'unknown processor')}" + (f", {cores} cores" if cores else ""),
        report["written"][:16].replace("T", " "),
    )
    return tag(
        "header",
        tag("h1", subject["name"]),
        tag("p", *(tag("span", fact) for fact in facts), class_="facts"),
    )


def draw_answers(verdict: Verdict) -> Html:
    """Why to take care, if at all; then the four answers."""
    care = None
    if verdict.care:
        words = tag("strong", "Take care. ")
        care = tag("p", words, " ".join(verdict.care), class_="notice", id="care")
    cards = [_card(answer, ident) for answer, ident in zip(verdict.answers, _IDENTS, strict=True)]
    next_card = tag(
        "section",
        tag("h2", "What next?", id="next-head"),
        tag("ul", *(_step(step) for step in verdict.steps)),
        id="next",
        class_="answer",
        aria_labelledby="next-head",
    )
    return join(care, tag("div", *cards, next_card, class_="answers"))


_IDENTS = ("right", "fast", "why")


def _card(answer: Answer, ident: str) -> Html:
    mark = _MARKS[answer.mood]
    return tag(
        "section",
        tag(
            "h2",
            tag("span", mark, class_="mark", aria_hidden="true") if mark else None,
            answer.question,
            id=f"{ident}-head",
        ),
        tag("p", *_unbroken(answer.text), class_="lead"),
        tag("p", *_unbroken(" ".join(answer.more)), class_="more") if answer.more else None,
        id=ident,
        class_=f"answer {answer.mood}",
        aria_labelledby=f"{ident}-head",
    )


def _unbroken(text: str) -> list[object]:
    """Text whose figures like 1e-4 stay on one line."""
    pieces = _FIGURE.split(text)
    return [tag("span", p, class_="whole") if i % 2 else p for i, p in enumerate(pieces)]


def _step(step: NextStep) -> Html:
    return tag("li", tag("code", step.command), tag("span", step.why))
