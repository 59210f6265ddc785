"""The stream timeline: the picture of a traced call, as an image that can run nothing."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from ...html import Html, join, tag
from ...reading import entry, listing, mapping, number
from .tables import UNKNOWN, Rows
from .words import ms_text


def draw_picture(svg: str, timeline: Mapping[str, Any]) -> Html:
    """The drawing of ``bench --timeline``; colours follow the reader's, as everywhere."""
    data = base64.b64encode(svg.encode()).decode()
    about = f"Timeline of one call: {overlap_text(timeline)}"
    image = tag("img", src=f"data:image/svg+xml;base64,{data}", alt=about, width="960")
    return tag("div", image, class_="scroll picture", tabindex="0", role="group", aria_label=about)


def overlap_text(timeline: Mapping[str, Any]) -> str:
    """Overlap and the critical path in words."""
    overlap, wall = number(timeline, "overlap"), number(timeline, "wall_us")
    if overlap is None or wall is None:
        return "no overlap is known."
    path = " to ".join(str(entry(row, "name")) for row in listing(timeline, "critical"))
    return (
        f"{ms_text(wall / 1000)} for a call in which {overlap:.2f} things went on at a time; "
        f"critical path: {path or UNKNOWN}."
    )


def lane_rows(timeline: Mapping[str, Any]) -> Rows:
    """Where the time of each lane went."""
    kinds = ("engines", "copies", "waiting", "launching", "done")
    rows = []
    for lane in listing(timeline, "lanes"):
        times = [number(lane, f"{kind}_us") for kind in kinds]
        gap = mapping(lane, "longest_gap")
        rows.append(
            (
                f"{entry(lane, 'device')}/{entry(lane, 'lane')}",
                *(UNKNOWN if us is None else ms_text(us / 1000) for us in times),
                f"{ms_text((number(gap, 'us') or 0.0) / 1000)} before {gap.get('before')}",
            )
        )
    return Rows(
        caption="Lanes (device/lane): waiting is for other lanes, launching when all was ready",
        heads=("lane", *kinds, "longest gap"),
        rows=tuple(rows),
        numbers=(1, 2, 3, 4, 5),
    )


def draw_summary(timeline: Mapping[str, Any]) -> Html:
    """The words above the picture; a simulation is called so."""
    simulated = entry(timeline, "simulated") is True
    words = "Simulated devices: these times say nothing about any hardware."
    warning = tag("p", words, class_="warn")
    text = overlap_text(timeline)
    return join(warning if simulated else None, tag("p", text[:1].upper() + text[1:]))
