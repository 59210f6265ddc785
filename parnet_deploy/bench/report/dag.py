"""The parts of the network and what flows between them, coloured by time."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ...html import Html, join, tag
from ...spec import IMAGE, LOGITS, ModelSpec, PartSpec
from ..result import PartTime
from .axis import figure, percent
from .words import ms_text, share_text

LEVELS = 6  # of colour
_STEP, _BOX, _TOP = 74, 46, 34
_FILL = 0.88  # of a column that a box takes
_NUMBER = re.compile(r"\d+$")


@dataclass(frozen=True, kw_only=True)
class Cell:
    """Where a part is drawn: streams from left to right, what comes later further down."""

    row: int
    column: int


def lay_out(spec: ModelSpec) -> dict[str, Cell]:
    """A cell for each part, no two the same."""
    made = {part.output: part for part in spec.parts}
    rows: dict[str, int] = {}
    for part in spec.parts:
        before = [rows[made[name].name] for name in part.inputs if name in made]
        rows[part.name] = max(before, default=-1) + 1
    last = spec.streams - 1
    return {name: Cell(row=row, column=_column(name, last)) for name, row in rows.items()}


def _column(name: str, last: int) -> int:
    number = _NUMBER.search(name)
    return last if number is None else min(int(number[0]), last)


def draw_dag(spec: ModelSpec, times: Sequence[PartTime]) -> Html:
    """The graph of the parts; a part whose time is not known has no colour."""
    known = {time["part"]: time for time in times}
    longest = max((time["ms"] for time in times), default=0.0)
    total = sum(time["ms"] for time in times)
    cells = lay_out(spec)
    columns = spec.streams
    bottom = _TOP + _STEP * (max(cell.row for cell in cells.values()) + 1)
    boxes = [
        _box(part.name, cells[part.name], columns, known.get(part.name), longest, total)
        for part in spec.parts
    ]
    path = [time["part"] for time in times if time["critical"]]
    about = ", ".join(f"{time['part']} {ms_text(time['ms'])}" for time in times)
    return figure(
        [*_edges(spec, cells, known, bottom), *boxes],
        ident="dag",
        title="The parts of the network, coloured by time",
        about=f"{about or 'No times are known'}. Critical path: {', '.join(path) or 'not known'}.",
        height=bottom + 14,
        class_="dag",
        caption=join(
            "The stronger the colour, the more time. ",
            tag("strong", "Thick frames and lines"),
            ": the critical path, which no number of lanes makes shorter.",
        ),
    )


def level(ms: float, longest: float) -> int:
    """A part's colour: 0 for none of the time of the longest part, ``LEVELS`` - 1 for all of it."""
    return min(int(ms / longest * LEVELS), LEVELS - 1) if longest > 0 else 0


def _box(
    name: str, cell: Cell, columns: int, time: PartTime | None, longest: float, total: float
) -> Html:
    width = 100 / columns * _FILL
    x, y = _centre(cell, columns) - width / 2, _TOP + _STEP * cell.row
    middle = percent(x + width / 2)
    kind = "heat none" if time is None else f"heat h{level(time['ms'], longest)}"
    critical = " critical" if time is not None and time["critical"] else ""
    figures = "not measured"
    if time is not None:
        share = time["ms"] / total if total else 0.0
        figures = f"{ms_text(time['ms'])}, {share_text(share)}"
    return join(
        tag(
            "rect",
            tag("title", f"{name}: {figures}{', on the critical path' if critical else ''}"),
            class_=f"{kind}{critical}",
            x=percent(x),
            y=str(y),
            width=percent(width),
            height=str(_BOX),
            rx="7",
        ),
        tag("text", name, class_=f"{kind} strong", x=middle, y=str(y + 19), text_anchor="middle"),
        tag("text", figures, class_=f"{kind} small", x=middle, y=str(y + 36), text_anchor="middle"),
    )


def _edges(
    spec: ModelSpec, cells: Mapping[str, Cell], known: Mapping[str, PartTime], bottom: float
) -> list[Html]:
    made = {part.output: part for part in spec.parts}
    found = []
    for part in spec.parts:
        for name in part.inputs:
            found.append(_edge(made.get(name), part, cells, spec.streams, known))
    last = made[LOGITS]
    x = percent(_centre(cells[last.name], spec.streams))
    y = _TOP + _STEP * cells[last.name].row + _BOX
    first = percent(_centre(cells[spec.parts[0].name], spec.streams))
    return [
        *found,
        tag("line", class_=_edge_class(last, None, known), x1=x, x2=x, y1=str(y), y2=str(y + 14)),
        tag("text", "logits", class_="small", x=x, y=f"{bottom + 2:g}", text_anchor="middle"),
        tag("text", IMAGE, class_="small", x=first, y="14", text_anchor="middle"),
    ]


def _edge(
    source: PartSpec | None,
    target: PartSpec,
    cells: Mapping[str, Cell],
    columns: int,
    known: Mapping[str, PartTime],
) -> Html:
    end = cells[target.name]
    x, y = _centre(end, columns), 18.0
    if source is not None:
        start = cells[source.name]
        x, y = _centre(start, columns), _TOP + _STEP * start.row + _BOX
    return tag(
        "line",
        class_=_edge_class(source, target, known),
        x1=percent(x),
        x2=percent(_centre(end, columns)),
        y1=f"{y:g}",
        y2=f"{_TOP + _STEP * end.row:g}",
    )


def _edge_class(
    source: PartSpec | None, target: PartSpec | None, known: Mapping[str, PartTime]
) -> str:
    ends = [known.get(part.name) for part in (source, target) if part is not None]
    return "edge critical" if all(end is not None and end["critical"] for end in ends) else "edge"


def _centre(cell: Cell, columns: int) -> float:
    return 100 / columns * (cell.column + 0.5)
