"""Axes of drawings that fit any width: places are in percent, so text keeps its size."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ...html import Html, join, tag
from .words import number_text

_STEEP = 4.0  # largest by smallest, from which an axis is logarithmic
_FACTORS = (1.0, 2.0, 5.0)


@dataclass(frozen=True, kw_only=True)
class Axis:
    """Maps values to percent of the width, from ``left`` to ``right``."""

    low: float
    high: float
    log: bool
    left: float = 1.0
    right: float = 99.0

    def place(self, value: float) -> float:
        """Percent; what lies beyond an end is put on it."""
        inside = min(max(value, self.low), self.high)
        if self.log:
            part = math.log(inside / self.low) / math.log(self.high / self.low)
        else:
            part = (inside - self.low) / (self.high - self.low)
        return self.left + part * (self.right - self.left)

    def ticks(self, most: int = 8) -> list[float]:
        """Round values, at most so many."""
        found = _log_ticks(self.low, self.high) if self.log else []
        while len(found) > most:
            found = found[::2]
        return found if len(found) >= 3 else _linear_ticks(self.low, self.high, most)


def axis_over(values: Iterable[float], *, from_zero: bool = False) -> Axis:
    """An axis that shows all values, logarithmic where they differ much.

    Args:
        values: Positive, at least one.
        from_zero: Begin at 0, never logarithmic.
    """
    found = list(values)
    low, high = min(found), max(found)
    if from_zero:
        return Axis(low=0.0, high=high * 1.05 or 1.0, log=False)
    if low > 0 and high / low > _STEEP:
        return Axis(low=low * 0.9, high=high * 1.05, log=True)
    room = (high - low) * 0.04 or max(abs(high), 1e-9) * 0.1
    return Axis(low=max(low - room, 0.0), high=high + room, log=False)


def draw_axis(axis: Axis, *, top: float, bottom: float, unit: str) -> Html:
    """Lines at the ticks, their values below; a narrow page leaves out every second value."""
    items = []
    for number, value in enumerate(axis.ticks()):
        x = percent(axis.place(value))
        narrow = "tick odd" if number % 2 else "tick"
        items.append(tag("line", class_="grid", x1=x, x2=x, y1=f"{top:g}", y2=f"{bottom:g}"))
        label = tick_text(value) + (f" {unit}" if number == 0 else "")
        items.append(
            tag("text", label, class_=narrow, x=x, y=f"{bottom + 16:g}", text_anchor="middle")
        )
    return join(*items)


def tick_text(value: float) -> str:
    """A round value without needless digits."""
    return f"{value:g}" if 1e-3 <= abs(value) < 1e5 or value == 0 else number_text(value)


def percent(value: float) -> str:
    """A place or a length as SVG takes it."""
    return f"{value:.2f}%"


def figure(
    drawing: Sequence[object],
    *,
    ident: str,
    title: str,
    about: str,
    height: float,
    caption: object = None,
    class_: str | None = None,
) -> Html:
    """A drawing that is as wide as there is room, with what it says for those who cannot see it.

    Args:
        drawing: Elements, their horizontal places in percent.
        ident: Unique in the page.
        title: What it shows.
        about: The same as its picture, in words.
        height: In pixels.
        caption: Below it.
        class_: Of the figure.
    """
    svg = tag(
        "svg",
        tag("title", title, id=f"{ident}-title"),
        tag("desc", about, id=f"{ident}-desc"),
        *drawing,
        role="img",
        aria_labelledby=f"{ident}-title {ident}-desc",
        width="100%",
        height=f"{height:g}",
    )
    below = None if caption is None else tag("figcaption", caption)
    return tag("figure", svg, below, class_=class_)


def _log_ticks(low: float, high: float) -> list[float]:
    found = []
    for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1):
        found += [factor * 10.0**power for factor in _FACTORS]
    return [value for value in found if low <= value <= high]


def _linear_ticks(low: float, high: float, most: int) -> list[float]:
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(f * power for f in (*_FACTORS, 10.0) if f * power >= rough * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    count = math.floor(high / step + 1e-9) - first + 1
    return [round((first + i) * step, 12) for i in range(count)]
