"""``bench --compare``: is the deployment slower than it was when an older report was written?

Times of different days do not compare, for the machine is never the same twice. What compares is
the deployment in units of the yardstick, which both runs timed in turns with it.

What a change means is in ``change.py``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypedDict

import numpy as np

from ..contest.order import LEAST_ROUNDS
from ..errors import CheckFailedError, SpecError
from ..reading import number
from ..runtime.backend import on_host
from .change import (
    MARGIN,
    MARGIN_BY_TIME,
    MARGIN_PACED,
    MIN_SAMPLES,
    Verdict,
    change_between,
    judge,
)
from .environment import same_machine
from .regression_words import (
    CostChange,
    ModeChange,
    disturbed_by_others,
    memory_failure,
    other_differences,
    percent,
    warn,
)
from .result import OURS, SCHEMA, YARDSTICK, ArmResult, BenchReport, Subject
from .statistics import block_length

_SUBJECT = ("backend", "simulated", "batch", "input_size")


class Regression(TypedDict):
    """The comparison. ``failures`` are why it fails; ``warnings`` and ``notes`` are for people."""

    verdict: Verdict
    by: Literal["yardstick", "time"]
    old_written: str
    new_written: str
    modes: dict[str, ModeChange]
    costs: dict[str, CostChange]
    failures: list[str]
    warnings: list[str]
    notes: list[str]


def read_bench_report(path: Path) -> BenchReport:
    """An older report.

    Raises:
        SpecError: The file is not there, or is no report of this version.
    """
    if not path.is_file():  # a device or a pipe may never end
        raise SpecError(f"report {path}: got no file, expected one. Run: parnet-deploy bench.")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise SpecError(f"report {path}: cannot be read: {error}.") from error
    schema = found.get("schema") if isinstance(found, dict) else None
    missing = BenchReport.__required_keys__ - set(found) if schema == SCHEMA else set()
    if schema != SCHEMA or missing or not _readable(found):
        raise SpecError(
            f"report {path}: got {'no bench report' if schema is None else f'schema {schema}'}, "
            f"expected a whole one of schema {SCHEMA}. Run: parnet-deploy bench."
        )
    report: BenchReport = found
    return report


def _readable(found: Any) -> bool:
    """Whether everything is there that a comparison uses: it is compared with itself."""
    try:
        if any(count < 1 for count in found["rounds"].values()):
            return False
        for arm in found["arms"].values():
            for mode in arm["modes"].values():
                samples = np.asarray(mode["samples_ms"], np.float64)
                if samples.ndim != 1 or not samples.size or not (samples > 0).all():
                    return False
                if not np.isfinite(samples).all():
                    return False
        if YARDSTICK in found["arms"] and not _counts(found["arms"][YARDSTICK]["facts"]):
            return False
        compare_reports(found, found)
    except (KeyError, TypeError, ValueError, ArithmeticError, AttributeError, SpecError):
        return False
    return OURS in found["arms"]


def _counts(facts: Mapping[str, Any]) -> bool:
    repeats = number(facts, "repeats")
    return repeats is not None and repeats >= 1


def check_subject(old: BenchReport, subject: Subject) -> None:
    """Refuse a report of another backend, batch or input size, before anything is timed.

    Raises:
        SpecError: They differ; the message says in what.
    """
    then, now = ({**found} for found in (old["subject"], subject))
    names = ("backend", "batch", "input_size")
    changed = [name for name in names if then.get(name) != now[name]]
    _refuse([f"{name}: {then.get(name)} then, {now[name]} now" for name in changed])


def check_machine(old: BenchReport, environment: Mapping[str, Any]) -> None:
    """Refuse a report of another machine, before anything is timed.

    Raises:
        SpecError: With everything that differs.
    """
    _refuse(same_machine(old["environment"], environment))


def check_comparable(old: BenchReport, new: BenchReport) -> None:
    """Refuse reports of different machines, or of different questions.

    Raises:
        SpecError: With everything that differs.
    """
    found = same_machine(old["environment"], new["environment"])
    for name in _SUBJECT:
        then, now = (report["subject"].get(name) for report in (old, new))
        if then != now:
            found.append(f"{name} {then} then, {now} now")
    _refuse(found)
    if not _common_modes(old, new):
        raise SpecError(
            f"compare: got modes {', '.join(old['rounds'])} then, {', '.join(new['rounds'])} now, "
            "expected one in common, paced at the same rate. Run with the same --mode and --rate."
        )


def compare_reports(old: BenchReport, new: BenchReport) -> Regression:
    """Hold a report against an older one. See ``check_comparable`` and ``require_unchanged``.

    Raises:
        SpecError: They do not compare.
    """
    check_comparable(old, new)
    unit = _yardsticks(old, new)
    modes = {mode: _mode_change(old, new, mode, unit) for mode in _common_modes(old, new)}
    costs = dict(_costs(old, new))
    failures = [
        f"{mode}: {percent(found['change']['value'])} slower "
        f"({percent(found['change']['low'])} to {percent(found['change']['high'])})"
        for mode, found in modes.items()
        if found["verdict"] == "regression"
    ]
    failures += memory_failure(costs)
    return {
        "verdict": _overall([change["verdict"] for change in modes.values()]),
        "by": "time" if unit is None else "yardstick",
        "old_written": old["written"],
        "new_written": new["written"],
        "modes": modes,
        "costs": costs,
        "failures": failures,
        "warnings": list(warn(old, new, modes, costs)),
        "notes": list(other_differences(old, new, by_time=unit is None)),
    }


def require_unchanged(regression: Regression) -> None:
    """Fail if the deployment got worse beyond noise.

    Raises:
        CheckFailedError: It did; the message says by how much.
    """
    if regression["failures"]:
        raise CheckFailedError(
            f"compare with the report of {regression['old_written']}: got "
            f"{'; '.join(regression['failures'])}, expected no more than noise. "
            "The report was written; look at what changed since."
        )


def _refuse(differences: Sequence[str]) -> None:
    if differences:
        raise SpecError(
            f"compare: got reports of different runs ({'; '.join(differences)}), "
            "expected one machine, backend, batch and input size. "
            "Make the older report here, in the same way, and compare with that."
        )


def _common_modes(old: BenchReport, new: BenchReport) -> list[str]:
    same_rate = old["rate_hz"] == new["rate_hz"]
    return [m for m in new["rounds"] if m in old["rounds"] and (m != "paced" or same_rate)]


def _yardsticks(old: BenchReport, new: BenchReport) -> tuple[ArmResult, ArmResult] | None:
    """The yardsticks of both, if they are the same and say something about our backend."""
    found = [report["arms"].get(YARDSTICK) for report in (old, new)]
    if found[0] is None or found[1] is None or not on_host(new["subject"]["backend"]):
        return None
    versions = [arm["facts"].get("version") for arm in found if arm is not None]
    return (found[0], found[1]) if versions[0] == versions[1] else None


def _mode_change(
    old: BenchReport, new: BenchReport, mode: str, unit: tuple[ArmResult, ArmResult] | None
) -> ModeChange:
    ours = [report["arms"][OURS]["modes"][mode] for report in (old, new)]
    series = [np.asarray(one["samples_ms"]) for one in ours]
    medians = [float(np.median(samples)) for samples in series]
    yardstick_ms = None
    if unit is not None:
        found = [
            np.asarray(arm["modes"][mode]["samples_ms"]) / arm["facts"]["repeats"] for arm in unit
        ]
        yardstick_ms = (float(np.median(found[0])), float(np.median(found[1])))
        series = [samples / one for samples, one in zip(series, found, strict=True)]
    blocks = [
        max(len(samples) // report["rounds"][mode], block_length(samples))
        for samples, report in zip(series, (old, new), strict=True)
    ]
    by_time = unit is None and on_host(new["subject"]["backend"])
    between_runs = MARGIN_PACED if mode == "paced" else MARGIN
    margin = MARGIN_BY_TIME if by_time else between_runs
    change = change_between(list(series[0]), list(series[1]), (blocks[0], blocks[1]))
    disturbed = any(disturbed_by_others(report) for report in (old, new))
    then, now = (one["quantiles_ms"]["p99"] for one in ours)
    few = min(map(len, series)) < MIN_SAMPLES or any(
        report["rounds"][mode] < LEAST_ROUNDS for report in (old, new)
    )
    return ModeChange(
        verdict="too noisy to tell" if few else judge(change, margin, disturbed=disturbed),
        change=change,
        margin=margin,
        ours_ms=(medians[0], medians[1]),
        yardstick_ms=yardstick_ms,
        p99_ms=None if then is None or now is None else (then["value"], now["value"]),
    )


def _overall(verdicts: Sequence[Verdict]) -> Verdict:
    order: tuple[Verdict, ...] = ("regression", "too noisy to tell", "faster", "unchanged")
    return next(verdict for verdict in order if verdict in verdicts)


def _costs(old: BenchReport, new: BenchReport) -> Iterator[tuple[str, CostChange]]:
    then, now = (report["arms"][OURS] for report in (old, new))
    for name in ("memory_mib", "model_mib", "load_ms", "first_ms"):
        costs = number(then, name), number(now, name)
        if costs[0] is not None and costs[1] is not None:
            yield name, CostChange(old=costs[0], new=costs[1])
