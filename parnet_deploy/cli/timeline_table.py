"""How a traced call looks on the terminal: overlap, critical path, and the lanes' time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from . import render

_PARTS = (("engines_us", "engines"), ("copies_us", "copies"), ("launching_us", "launching"))


def draw_timeline_table(report: Mapping[str, Any], picture: str) -> list[RenderableType]:
    """Facts and a table of the lanes; ``picture`` is where the drawing lies."""
    split = report["critical_split"]
    shares = ", ".join(f"{name} {micros_text(split[key])}" for key, name in _PARTS)
    path = f" {render.ARROW} ".join(row["name"] for row in report["critical"])
    low, high = report["overlap_range"]
    found = render.table("lane", *(f">{name}" for name in ("engines", "copies", "waiting")),
                         ">launching", ">done", "longest gap")  # fmt: skip
    for lane in report["lanes"]:
        gap = lane["longest_gap"]
        found.add_row(
            f"device {lane['device']} lane {lane['lane']}",
            *(
                micros_text(lane[f"{key}_us"])
                for key in ("engines", "copies", "waiting", "launching", "done")
            ),
            f"{micros_text(gap['us'])} before {gap['before']}" if gap["before"] else "",
        )
    drawn: list[RenderableType] = [
        render.facts(
            [
                ("timeline", f"median of {report['calls']} traced calls, {picture}"),
                ("one call", micros_text(report["wall_us"])),
                ("overlap", f"{report['overlap']:.2f} ({low:.2f} to {high:.2f}): busy / wall time"),
                ("critical path", path),
                ("made of", shares),
            ]
        ),
        render.spaced(found),
        "",
        Text(
            "Waiting: for other lanes. Launching: all was ready. Traced without graphs: gaps are "
            "longer than in a timed call.",
            style="key",
        ),
    ]
    if report["simulated"]:
        text = "simulated devices: this timeline says nothing about any hardware"
        drawn += ["", *render.lines("!", "warn", [text])]
    return drawn


def micros_text(us: float) -> str:
    """Microseconds, or milliseconds where there are many."""
    return render.ms_text(us / 1000) if us >= 1000 else f"{render.three_digits(us)} us"
