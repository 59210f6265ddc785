"""The table of ``inspect`` about what was proved and measured so far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import RenderableType
from rich.text import Text

from . import render

if TYPE_CHECKING:
    from ..inspect.evidence import Evidence

_NOTHING = "nothing known"


def draw_evidence(evidence: Sequence[Evidence]) -> list[RenderableType]:
    """One line for each thing that was proved, and for each mode that was timed."""
    found = render.table("step", "evidence~", "found~", "when", "")
    for item in evidence:
        what = item.what if item.plan is None else f"{item.what}, {item.plan}"
        for i, text in enumerate(describe_evidence(item)):
            found.add_row(
                "" if i else item.step.partition(":")[0],
                Text("" if i else render.printable(what)),
                Text(render.printable(text)),
                "" if i else render.moment(item.finished),
                Text() if i else _mark(item.passed),
            )
    return [render.spaced(found)] if evidence else []


def describe_evidence(item: Evidence) -> list[str]:
    """What was found, in words."""
    if not item.figures:
        return [_NOTHING]
    if item.kind == "parity":
        return [_parity(item.figures)]
    if item.kind == "gates":
        return [_gates(item.figures)]
    return [_timing(mode, figures) for mode, figures in item.figures.items()]


def _mark(passed: bool | None) -> Text:
    return Text(render.NEUTRAL, style="key") if passed is None else render.verdict(passed)


def _parity(figures: Mapping[str, Any]) -> str:
    error, limit = render.error_text(figures["error"]), f"{figures['limit']:.0e}"
    text = f"error {error} of {limit}"
    return text if figures["compared"] == 1 else f"{text}, the worst of {figures['compared']}"


def _gates(figures: Mapping[str, Any]) -> str:
    texts = [f"{figures['held']} of {figures['gates']} gates hold"]
    if "accuracy" in figures and "reference_accuracy" in figures:
        shares = (render.percent_text(figures[k]) for k in ("accuracy", "reference_accuracy"))
        texts.append("accuracy {}, float32 {}".format(*shares))
    if "agreement" in figures:
        texts.append(f"{render.percent_text(figures['agreement'])} same answer")
    return "; ".join(texts)


def _timing(mode: str, figures: Mapping[str, Any]) -> str:
    text = f"{mode}: {render.ms_text(figures['median_ms'])}"
    if figures["low"] is not None and figures["high"] is not None:
        low, high = (render.three_digits(figures[end]) for end in ("low", "high"))
        text += f" ({low} to {high})"
    ratios = (f"{name} takes {ratio:.2f}x" for name, ratio in figures["ratios"].items())
    return "; ".join((text, *ratios))
