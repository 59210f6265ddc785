"""The samples of every arm, on one axis: a histogram each, with its quantiles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ...html import Html, join, tag
from ..result import OURS, BenchReport, Mode, ModeResult
from .axis import Axis, axis_over, draw_axis, figure, percent
from .tables import ours_first
from .words import arm_title, ms_text, number_text, shortened

_BINS = 110
_ROW, _LABEL, _TALL = 62, 20, 32
_SHOWN = ("p50", "p90", "p99")
_MARGIN = 1.1
_MODES = {
    "saturated": "Saturated: the next call begins when the last one ended",
    "paced": "Paced: calls spaced as in real life",
}


def draw_distributions(report: BenchReport) -> Html:
    """A drawing for each mode; all have the same axis."""
    axis = _axis(report)
    return join(*(_mode(report, mode, axis) for mode in report["rounds"]))


def _axis(report: BenchReport) -> Axis:
    """From the smallest sample to a little more than the largest p99; the rest is counted."""
    values = []
    for arm in report["arms"].values():
        for found in arm["modes"].values():
            values += [min(found["samples_ms"]), _high(found["samples_ms"])]
    return axis_over(values)


def _high(samples: Sequence[float]) -> float:
    return min(float(np.quantile(samples, 0.99)) * _MARGIN, max(samples))


def _mode(report: BenchReport, mode: str, axis: Axis) -> Html:
    arms = {n: a["modes"][_as(mode)] for n, a in ours_first(report).items() if mode in a["modes"]}
    bottom = _ROW * len(arms)
    rows = [
        _row(name, found, axis, _ROW * i, _kind(report, name))
        for i, (name, found) in enumerate(arms.items())
    ]
    return figure(
        [draw_axis(axis, top=0, bottom=bottom + 4, unit="ms"), *rows],
        ident=f"spread-{mode}",
        title=f"Times of all calls, {mode}",
        about=_about(arms),
        height=bottom + 26,
        caption=join(
            tag("strong", _MODES.get(mode, mode)),
            ". Height: how many calls took so long. Solid line: p50; dashed: p90; dotted: p99. ",
            "The axis is logarithmic." if axis.log else "The axis does not begin at 0.",
        ),
    )


def _as(mode: str) -> Mode:
    return "paced" if mode == "paced" else "saturated"


def _kind(report: BenchReport, name: str) -> str:
    return "ours" if name == OURS else report["arms"][name]["network"]


def _row(name: str, found: ModeResult, axis: Axis, top: float, kind: str) -> Html:
    samples = found["samples_ms"]
    base = top + _LABEL + _TALL
    beyond = sum(sample > axis.high for sample in samples)
    far = f"{beyond} beyond, up to {ms_text(max(samples))}" if beyond else ""
    y = f"{top + 14:g}"
    return join(
        tag("line", class_="base", x1="0", x2="100%", y1=f"{base:g}", y2=f"{base:g}"),
        _bars(samples, axis, base, kind),
        *_marks(found, axis, base),
        tag(
            "text",
            tag("tspan", shortened(arm_title(name)), class_="strong"),
            tag("tspan", f" {_figures(found)}", class_="figures odd"),
            x="0",
            y=y,
        ),
        tag("text", far, class_="small", x="100%", y=y, text_anchor="end") if far else None,
    )


def _bars(samples: Sequence[float], axis: Axis, base: float, kind: str) -> Html:
    places = [axis.place(sample) for sample in samples if sample <= axis.high]
    counts, edges = np.histogram(places, bins=_BINS, range=(axis.left, axis.right))
    most = max(int(counts.max()), 1)
    width = (axis.right - axis.left) / _BINS
    return join(
        *(
            tag(
                "rect",
                class_=f"spread {kind}",
                x=percent(float(left)),
                y=f"{base - max(count / most * _TALL, 2):.1f}",
                width=percent(width),
                height=f"{max(count / most * _TALL, 2):.1f}",
            )
            for count, left in zip(counts.tolist(), edges[:-1].tolist(), strict=True)
            if count
        )
    )


def _marks(found: ModeResult, axis: Axis, base: float) -> list[Html]:
    marks = []
    for name in _SHOWN:
        told = found["quantiles_ms"].get(name)
        if told is not None:
            x = percent(axis.place(told["value"]))
            title = tag("title", f"{name}: {ms_text(told['value'])}")
            where = {"x1": x, "x2": x, "y1": f"{base - _TALL - 2:g}", "y2": f"{base + 4:g}"}
            marks.append(tag("line", title, class_=f"mark {name}", **where))
    return marks


def _figures(found: ModeResult) -> str:
    told = {name: found["quantiles_ms"].get(name) for name in _SHOWN}
    known = (f"{n} {number_text(q['value'])}" for n, q in told.items() if q is not None)
    return f"{', '.join(known)} ms"


def _about(arms: Mapping[str, ModeResult]) -> str:
    rows = (
        f"{arm_title(name)}: {_figures(found)}, {len(found['samples_ms'])} calls from "
        f"{ms_text(min(found['samples_ms']))} to {ms_text(max(found['samples_ms']))}"
        for name, found in arms.items()
    )
    return "; ".join(rows) + "."
