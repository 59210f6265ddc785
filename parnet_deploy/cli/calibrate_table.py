"""How a calibration ended: each precision beside float32, and which layers stayed in it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import RenderableType
from rich.text import Text

from . import render
from .options import Common

if TYPE_CHECKING:
    from ..quantize.calibrate_step import Calibration


def draw_outcomes(
    common: Common,
    directory: Path,
    calibration: Calibration,
    outcomes: Mapping[str, Mapping[str, Any]],
) -> list[RenderableType]:
    """What was calibrated, how each precision did, and what to do next."""
    report = calibration.report
    worst = report["worst_clipped"]
    how = "unchanged" if calibration.current else f"{report['tensors']} ranges"
    items: list[RenderableType] = [
        render.heading(directory.name, f"calibrated, in {render.printable(directory)}"),
        render.facts(
            [
                ("calibration", f"{report['method']} on {report['images']} images, {how}"),
                (
                    "clipped",
                    f"{render.percent_text(report['clipped'])} of the values on "
                    f"{report['held_out']} held-out images, at worst "
                    f"{render.percent_text(worst['share'])} of {worst['tensor']}",
                ),
            ]
        ),
        render.spaced(_table(outcomes)),
        "",
    ]
    for target, found in outcomes.items():
        if found["passed"]:
            kept = [r["layer"] for r in found["report"]["layers"] if r["precision"] == "fp32"]
            if kept:
                text = f"{target}: in float32 stay {', '.join(kept)}"
                items += [Text(text, style="key"), ""]
    pages = [target for target, found in outcomes.items() if found["passed"]]
    if not pages:
        return items
    path = directory / f"reports/precision-{pages[0]}.html"
    build = f"parnet-deploy build {common.argument(directory)} --precision auto"
    return [
        *items,
        render.next_step(
            (build, "engines in the fastest of them"), (str(path), "the report, for a browser")
        ),
    ]


def _table(outcomes: Mapping[str, Mapping[str, Any]]) -> Any:
    found = render.table("precision", "images", ">float32", ">this", ">same", ">SQNR", ">size", "")
    for target, outcome in outcomes.items():
        if not outcome["passed"]:
            found.add_row(target, "", "", "", "", "", "", render.verdict(False))
            continue
        report = outcome["report"]
        scores = report["measured"]["kernel"] or report["measured"]["emulated"]
        for i, (name, score) in enumerate(scores.items()):
            found.add_row(
                "" if i else target,
                name,
                _share(score["reference_accuracy"]),
                _share(score["accuracy"]),
                render.percent_text(score["agreement"]),
                f"{score['sqnr_db']:.1f} dB",
                "" if i else f"{report['bytes_after'] / report['bytes_before']:.2f}",
                render.verdict(True),
            )
    return found


def _share(value: float | None) -> str:
    return render.NEUTRAL if value is None else render.percent_text(value)
