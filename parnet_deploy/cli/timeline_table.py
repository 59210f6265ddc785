"""How a traced call looks on the terminal: overlap, critical path, and the lanes' time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from . import render

_LANE = {
    "engines": "engines",
    "copies": "copies",
    "waiting": "wait",
    "launching": "launch",
    "done": "done",
}
_PARTS = (("engines_us", "engines"), ("copies_us", "copies"), ("launching_us", "launching"))


def draw_timeline_table(report: Mapping[str, Any], picture: str) -> list[RenderableType]:
    """Facts and a table of the lanes; ``picture`` is where the drawing lies."""
    split = report["critical_split"]
    shares = ", ".join(f"{name} {micros_text(split[key])}" for key, name in _PARTS)
    path = f" {render.ARROW} ".join(row["name"] for row in report["critical"])
    low, high = report["overlap_range"]
    unit, scale = ("ms", 1e-3) if report["wall_us"] >= 10_000 else ("us", 1.0)
    figures = [f">{name}" for name in (*_LANE.values(), "gap")]
    found = render.table(f"{unit}: lane", *figures, "before~")
    for lane in report["lanes"]:
        gap = lane["longest_gap"]
        copies = [lane["device"], lane["lane"]] in report["copy_lanes"]
        times = [*(lane[f"{name}_us"] for name in _LANE), gap["us"]]
        found.add_row(
            f"{lane['device']}/{lane['lane']}{' copies' if copies else ''}",
            *(_number(value * scale) for value in times),
            gap["before"],
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
            "Lane: device/lane. Wait: for other lanes. Launch: all was ready. Gap: the longest of "
            "both. Traced without graphs: gaps are longer than in a timed call.",
            style="key",
        ),
    ]
    if report["simulated"]:
        text = "simulated devices: this timeline says nothing about any hardware"
        drawn += ["", *render.lines("!", "warn", [text])]
    return drawn


def micros_text(us: float) -> str:
    """Microseconds, or milliseconds where there are many."""
    return render.ms_text(us / 1000) if us >= 1000 else f"{_number(us)} us"


def _number(value: float) -> str:
    return render.three_digits(value) if value >= 0.0005 else "0"
