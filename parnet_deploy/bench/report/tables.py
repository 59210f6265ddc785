"""The tables of a report: rows of plain text, which the page and the terminal both draw."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ..result import OURS, QUANTILE_NAMES, ArmResult, BenchReport, Interval, ModeResult
from ..statistics import samples_needed
from .words import (
    arm_title,
    bounds_text,
    count_text,
    error_text,
    mib_text,
    ms_text,
    number_text,
    ours_of_it,
    ratio_text,
    share_text,
)

UNKNOWN = "not known"


@dataclass(frozen=True, kw_only=True)
class Rows:
    """A table. ``numbers`` are the columns of figures."""

    caption: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numbers: tuple[int, ...] = ()


def latency_rows(report: BenchReport) -> Rows:
    """Quantiles with their intervals, and how ours stands to each arm."""
    rows = [
        (
            arm_title(name),
            mode,
            *(quantile_text(found, quantile) for quantile in QUANTILE_NAMES),
            "" if name == OURS else ratio_text(ours_of_it(found["ratio_to_ours"])),
            str(len(found["samples_ms"])),
        )
        for name, mode, found in _timed(report)
    ]
    return Rows(
        caption="Milliseconds of a call, each with its 95 % interval; ours / it is our time in "
        "units of that arm's",
        heads=("arm", "mode", *QUANTILE_NAMES, "ours / it", "calls"),
        rows=tuple(rows),
        numbers=(2, 3, 4, 5, 6, 7),
    )


def _timed(report: BenchReport) -> Iterator[tuple[str, str, ModeResult]]:
    for mode in ("saturated", "paced"):
        for name, arm in report["arms"].items():
            found = arm["modes"].get(mode)
            if found is not None:
                yield name, mode, found


def quantile_text(found: ModeResult, name: str) -> str:
    """A quantile with its interval, or how many samples it would take to tell it."""
    told = found["quantiles_ms"].get(name)
    if told is None:
        return f"needs {samples_needed(name)}"
    return f"{number_text(told['value'])} {bounds_text(told)}"


def median_of(arm: ArmResult, mode: str) -> Interval | None:
    """An arm's p50 in a mode."""
    found = arm["modes"].get(mode)
    return None if found is None else found["quantiles_ms"]["p50"]


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
        for name, arm in report["arms"].items()
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
        for name, arm in report["arms"].items()
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
        for name, arm in report["arms"].items()
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


def _or_unknown(value: float | None, draw: Callable[[float], str]) -> str:
    return UNKNOWN if value is None else draw(value)
