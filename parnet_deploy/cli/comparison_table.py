"""What ``bench --compare`` found, for people."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import RenderableType
from rich.text import Text

from . import render

if TYPE_CHECKING:
    from ..bench.result import BenchReport

_STYLES = {"regression": "bad", "faster": "ok", "unchanged": "ok"}


def read_older(path: Path) -> BenchReport:
    """An older report, before anything is timed and it may be overwritten.

    Raises:
        SpecError: It is none, or it is of another machine.
    """
    from ..bench.regression import check_machine, read_bench_report
    from ..machine.describe import describe_machine

    old = read_bench_report(path)
    check_machine(old, describe_machine())
    return old


def draw_comparison(found: Mapping[str, Any]) -> list[RenderableType]:
    """The verdict, each mode, and what else differs."""
    table = render.table("compared", ">then ms", ">now ms", ">change", ">95 %", "verdict")
    for mode, one in found["modes"].items():
        change = {name: 100 * (value - 1) for name, value in one["change"].items()}
        table.add_row(
            mode,
            *map(render.three_digits, one["ours_ms"]),
            f"{change['value']:+.1f} %",
            f"{change['low']:+.1f} to {change['high']:+.1f}",
            one["verdict"],
        )
    by = "in units of the yardstick" if found["by"] == "yardstick" else "by time"
    since = render.printable(found["old_written"])
    return [
        Text(f"{found['verdict']}, {by}, since {since}", _style(found["verdict"])),
        render.spaced(table),
        *render.lines("!", "warn", [*found["failures"], *found["warnings"]]),
        *render.lines("-", "key", found["notes"]),
    ]


def _style(verdict: str) -> str:
    return _STYLES.get(verdict, "warn")
