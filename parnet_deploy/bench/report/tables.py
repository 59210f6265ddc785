"""The tables of a report: rows of plain text, which the page and the terminal both draw."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ...contest.order import LEAST_ROUNDS
from ..result import OURS, QUANTILE_NAMES, YARDSTICK, ArmResult, BenchReport, Curve, ModeResult
from ..statistics import samples_needed
from .fast import tells_apart
from .why import distortion, split_shares, stage_share
from .words import (
    arm_title,
    count_text,
    error_text,
    interval_text,
    mib_text,
    ms_text,
    number_text,
    ours_of_it,
    ratio_text,
    share_text,
)

UNKNOWN = "not known"
"""What stands where a figure should."""

_TOO_FEW = f"needs {LEAST_ROUNDS} rounds"
_CURVES = {
    "batch": "Batch: time for all images of a call",
    "threads": "Cores for the engines",
    "size": "Height and width of the image",
    "variant": "Variants",
}


@dataclass(frozen=True, kw_only=True)
class Rows:
    """A table. ``numbers`` are the columns of figures."""

    caption: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numbers: tuple[int, ...] = ()


def ours_first(report: BenchReport) -> dict[str, ArmResult]:
    """The arms, ours before all others: a file may have them in another order."""
    arms = report["arms"]
    return {name: arms[name] for name in (OURS, *(name for name in arms if name != OURS))}


def latency_rows(report: BenchReport, mode: str, *, brief: bool = False) -> Rows:
    """Quantiles, and how ours stands to each arm, in one mode.

    Args:
        report: What was measured.
        mode: saturated or paced.
        brief: Without the intervals of the quantiles.
    """
    timed = {n: a["modes"][mode] for n, a in ours_first(report).items() if mode in a["modes"]}
    late = [f.get("late", 0) for f in timed.values()]
    compared = tells_apart(report, mode)
    told = [name for name in QUANTILE_NAMES if any(_tells(f, name) for f in timed.values())]
    untold = [f"{n} needs {samples_needed(n)} calls" for n in QUANTILE_NAMES if n not in told]
    rows = [
        (
            arm_title(name),
            _standing_text(name, found, compared=compared),
            *(quantile_text(found, quantile, brief=brief or not compared) for quantile in told),
            str(len(found["samples_ms"])),
            *([str(missed)] if any(late) else []),
        )
        for (name, found), missed in zip(timed.items(), late, strict=True)
    ]
    pace = f" at {report['rate_hz']:g} calls a second" if mode == "paced" else ""
    caption = f"Milliseconds of a call, {mode}{pace}"
    caption += "; intervals of 95 %" if compared else f"; intervals need {LEAST_ROUNDS} rounds"
    if any(late):
        untold.append("late: due while the call before still ran, and left out")
    return Rows(
        caption="; ".join((caption, *untold)),
        heads=("arm", "ours / it", *told, "calls", *(["late"] if any(late) else [])),
        rows=tuple(rows),
        numbers=tuple(range(1, len(told) + 4)),
    )


def _standing_text(name: str, found: ModeResult, *, compared: bool) -> str:
    if name in (OURS, YARDSTICK):
        return ""
    return ratio_text(ours_of_it(found["ratio_to_ours"])) if compared else _TOO_FEW


def _tells(found: ModeResult, name: str) -> bool:
    return found["quantiles_ms"].get(name) is not None


def quantile_text(found: ModeResult, name: str, *, brief: bool = False) -> str:
    """A quantile with its interval, or how many samples it would take to tell it."""
    told = found["quantiles_ms"].get(name)
    if told is None:
        return f"needs {samples_needed(name)}"
    return number_text(told["value"]) if brief else interval_text(told)


def cost_rows(report: BenchReport) -> Rows:
    """What an arm costs before its first answer, and to keep."""
    rows = [
        (
            arm_title(name),
            _or_unknown(arm["import_ms"], ms_text),
            _or_unknown(arm["load_ms"], ms_text),
            ms_text(arm["first_ms"]),
            _or_unknown(arm["memory_mib"], mib_text),
            _or_unknown(arm["model_mib"], mib_text),
        )
        for name, arm in ours_first(report).items()
    ]
    return Rows(
        caption="Once per process: importing, opening, the first call; memory of the process with "
        "its libraries; the model's files",
        heads=("arm", "import", "load", "first call", "memory", "model"),
        rows=tuple(rows),
        numbers=(1, 2, 3, 4, 5),
    )


def arm_rows(report: BenchReport) -> Rows:
    """What each arm is."""
    rows = [
        (
            arm_title(name),
            arm["precision"],
            _or_unknown(arm["parameters"], count_text),
            _or_unknown(arm["macs"], count_text),
            arm["note"],
        )
        for name, arm in ours_first(report).items()
    ]
    return Rows(
        caption="What was timed; multiply-accumulates (MACs) are of one image",
        heads=("arm", "precision", "parameters", "MACs", "what it is"),
        rows=tuple(rows),
        numbers=(2, 3),
    )


def check_rows(report: BenchReport) -> Rows:
    """The output of every arm, checked before anything was timed."""
    rows = [
        (
            arm_title(name),
            arm["check"]["what"],
            error_text(arm["check"]["error"]),
            error_text(arm["check"]["limit"]),
            "passed" if arm["check"]["passed"] else "FAILED",
        )
        for name, arm in ours_first(report).items()
    ]
    return Rows(
        caption="The output of every arm, before anything was timed",
        heads=("arm", "compared", "error", "allowed", ""),
        rows=tuple(rows),
        numbers=(2, 3),
    )


def part_rows(report: BenchReport) -> Rows:
    """The parts of the network, in their order."""
    parts = report["split"]["parts"] if report["split"] is not None else []
    rows = [
        (
            str(number),
            part["part"],
            number_text(part["ms"]),
            f"{count_text(part['macs'])}",
            mib_text(part["bytes"] / 2**20),
            number_text(part["gflops"]),
            _or_unknown(part["share_of_peak"], share_text),
            "yes" if part["critical"] else "",
        )
        for number, part in enumerate(parts, 1)
    ]
    return Rows(
        caption="The parts of the network",
        heads=("#", "part", "ms", "MACs", "moved", "GFLOP/s", "of peak", "critical"),
        rows=tuple(rows),
        numbers=(0, 2, 3, 4, 5, 6),
    )


def split_rows(report: BenchReport) -> Rows:
    """The stages of a call; none where they were not measured."""
    split = report["split"]
    rows: list[tuple[str, ...]] = []
    if split is not None:
        shares = split_shares(split)
        rows = [
            (row["stage"], number_text(row["ms"]), stage_share(shares, row["stage"]))
            for row in split["rows"]
        ]
        rows.append(("the whole", number_text(split["whole_ms"]), ""))
    longer = None if split is None else distortion(split)
    cost = "" if longer is None else f"; looking into it made it {longer:.1f} times as long"
    return Rows(
        caption=f"Where the time of a call goes{cost}",
        heads=("stage", "ms", "share"),
        rows=tuple(rows),
        numbers=(1, 2),
    )


def curve_title(curve: Curve) -> str:
    """What a curve shows."""
    return _CURVES.get(curve["over"], curve["over"])


def curve_rows(curve: Curve) -> Rows:
    """The points of a curve, with notes if there are any."""
    rows = [(p["value"], interval_text(p["ms"]), p["note"]) for p in curve["points"]]
    width = 3 if any(note for *_, note in rows) else 2
    return Rows(
        caption=f"{curve_title(curve)}; with 95 % intervals",
        heads=(curve["over"], "ms", "note")[:width],
        rows=tuple(row[:width] for row in rows),
        numbers=(1,),
    )


def _or_unknown(value: float | None, draw: Callable[[float], str]) -> str:
    return UNKNOWN if value is None else draw(value)
