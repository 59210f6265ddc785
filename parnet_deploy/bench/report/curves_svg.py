"""Latency over batch, threads, size or variant."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from ...html import Html, join, table, tag
from ..result import Curve, CurvePoint
from .axis import Axis, axis_over, figure, percent, tick_text
from .tables import curve_rows, curve_title
from .words import ms_text, shortened

_TOP, _BOTTOM, _HEIGHT = 14, 170, 206
_LEFT, _RIGHT = 12.0, 94.0


def draw_curves(curves: Sequence[Curve]) -> Html:
    """Each curve with its numbers, and what was left out of it and why."""
    return join(
        *(tag("div", _curve(curve, number), class_="curve") for number, curve in enumerate(curves))
    )


def _curve(curve: Curve, number: int) -> Html:
    title = curve_title(curve)
    left_out = [
        tag("li", tag("strong", f"{curve['over']} {value}"), f" was left out: {why}")
        for value, why in curve["left_out"].items()
    ]
    items: list[object] = [tag("h3", title)]
    if curve["points"]:
        items.append(_drawing(curve["points"], f"curve{number}", title))
        found = curve_rows(curve)
        items.append(table(found.heads, found.rows, caption=found.caption, numbers=found.numbers))
    return join(*items, tag("ul", *left_out) if left_out else None)


def _drawing(points: Sequence[CurvePoint], ident: str, title: str) -> Html:
    axis = axis_over([point["ms"]["high"] for point in points], from_zero=True)
    step = (_RIGHT - _LEFT) / max(len(points) - 1, 1)
    places = [_LEFT + step * i if len(points) > 1 else 50.0 for i in range(len(points))]
    below = str(_BOTTOM + 18)
    heights = [_height(axis, point["ms"]["value"]) for point in points]
    items = [*_levels(axis)]
    for (x1, y1), (x2, y2) in pairwise(zip(places, heights, strict=True)):
        where = {"x1": percent(x1), "x2": percent(x2), "y1": f"{y1:.1f}", "y2": f"{y2:.1f}"}
        items.append(tag("line", class_="curve-line", **where))
    for point, x, y in zip(points, places, heights, strict=True):
        low, high = (_height(axis, point["ms"][end]) for end in ("low", "high"))
        at = percent(x)
        about = f"{point['value']}: {ms_text(point['ms']['value'])}"
        items += [
            tag("line", class_="whisker", x1=at, x2=at, y1=f"{low:.1f}", y2=f"{high:.1f}"),
            tag("circle", tag("title", about), class_="dot", cx=at, cy=f"{y:.1f}", r="4.5"),
            tag(
                "text",
                shortened(point["value"], 12),
                class_="tick",
                text_anchor="middle",
                x=at,
                y=below,
            ),
        ]
    about = ", ".join(f"{p['value']}: {ms_text(p['ms']['value'])}" for p in points)
    return figure(items, ident=ident, title=title, about=f"{about}.", height=_HEIGHT)


def _levels(axis: Axis) -> list[Html]:
    items = []
    for value in axis.ticks(5):
        y = f"{_height(axis, value):.1f}"
        where = {"x": percent(_LEFT - 2), "y": f"{_height(axis, value) + 4:.1f}"}
        items.append(tag("line", class_="grid", x1=percent(_LEFT), x2="99%", y1=y, y2=y))
        items.append(tag("text", tick_text(value), class_="tick", text_anchor="end", **where))
    return [*items, tag("text", "ms", class_="tick", x="0", y="12")]


def _height(axis: Axis, value: float) -> float:
    part = (axis.place(value) - axis.left) / (axis.right - axis.left)
    return _BOTTOM - part * (_BOTTOM - _TOP)
