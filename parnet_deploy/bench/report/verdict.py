"""The verdict in words: is it right, how fast is it, why, and what next.

Pure functions of a report and of what the other steps found; nothing is measured here.
"""

from __future__ import annotations

from ..result import BenchReport
from .answer import Verdict
from .evidence import Evidence
from .fast import how_fast
from .next_step import next_steps
from .right import is_right
from .why import why_so


def conclude(report: BenchReport, evidence: Evidence | None = None) -> Verdict:
    """Answer a reader's questions.

    Args:
        report: What was measured.
        evidence: What the other steps found, see ``evidence.gather``.
    """
    known = {} if evidence is None else evidence
    return Verdict(
        care=_care(report),
        right=is_right(report, known),
        fast=how_fast(report),
        why=why_so(report),
        steps=next_steps(report, known),
    )


def verdict(report: BenchReport, evidence: Evidence | None = None) -> list[str]:
    """The same as lines of plain text; why to take care comes first."""
    found = conclude(report, evidence)
    care = [f"Take care: {why}" for why in found.care]
    said = [" ".join((f"{a.question} {a.text}", *a.more)) for a in found.answers]
    return [*care, *said, *(f"Next: {step.command} ({step.why})" for step in found.steps)]


def _care(report: BenchReport) -> tuple[str, ...]:
    noise = [_sentence(noise["detail"]) for noise in report["noise"]]
    if report["subject"]["simulated"]:
        return ("Simulated devices: these times say nothing about any hardware.", *noise)
    return tuple(noise)


def _sentence(text: str) -> str:
    start = text[:1].upper() + text[1:]
    return start if start.endswith((".", "!", "?")) else f"{start}."
