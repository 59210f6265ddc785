"""The table that ``gpu.py`` prints for each model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

_COLUMNS = ("device us", "x floor", "enqueue us", "dev-dev us", "host-host us", "p99", "error")


def print_table(
    name: str,
    conditions: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    floors: Mapping[str, Any],
    rates: Mapping[str, float],
    path: Path,
) -> None:
    """Medians in microseconds; arms that failed keep their row, with the reason under the table."""
    stated = ", ".join(f"{key} {value}" for key, value in conditions.items())
    table = Table(title=f"{name}: {stated}")
    table.add_column("arm")
    table.add_column("type")
    for column in _COLUMNS:
        table.add_column(column, justify="right")
    for row in rows:
        if "failed" in row:
            table.add_row(row["name"], row["precision"], "-", "-", "-", "-", "-", "-", "-")
            continue
        series = row["series"]
        kinds = ("device", "enqueue", "device_to_device")
        device, enqueue, through = (f"{1e3 * series[k]['p50_ms']:.1f}" for k in kinds)
        table.add_row(
            row["name"],
            row["precision"],
            device,
            f"{row['device_over_floor']:.1f}",
            enqueue,
            through,
            f"{1e3 * row['p50_ms']:.1f}",
            f"{1e3 * row['p99_ms']:.1f}",
            f"{row['error_of_largest_logit']:.0e}",
        )
    console = Console(width=140)
    console.print(table)
    for precision in ("fp32", "fp16"):
        floor = floors[precision]
        console.print(
            f"floor {precision}: arithmetic {floor['arithmetic_us']:.1f} us, weights from memory "
            f"{floor['memory_us']:.1f} us (rates of this run)"
        )
    console.print(", ".join(f"{key} {value:.4g}" for key, value in rates.items()))
    for row in rows:
        if "failed" in row:
            console.print(f"{row['name']}, {row['precision']}: {row['failed']}", markup=False)
    console.print(f"written: {path}")
