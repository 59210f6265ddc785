"""What the steps proved: parity with the trained network, and what lower precision costs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...reading import entry, listing, mapping, number
from ..result import BenchReport
from .evidence import Evidence, precisions, proofs, scores
from .tables import UNKNOWN, Rows
from .words import error_text, exact_share_text, number_text, share_text

_NOTHING = "no labels"


def proof_rows(report: BenchReport, evidence: Evidence) -> Rows:
    """The comparisons of fuse, export, build and verify."""
    rows = [
        (
            proof.step,
            proof.what,
            error_text(proof.error),
            error_text(proof.limit),
            "" if proof.top1_equal is None else exact_share_text(proof.top1_equal),
            "passed" if proof.passed else "FAILED",
        )
        for proof in proofs(evidence, report["subject"]["plan"])
    ]
    return Rows(
        caption="Every step against the trained network: errors are of the largest value; of the "
        "parts of a step the worst",
        heads=("step", "compared", "error", "allowed", "same answer", ""),
        rows=tuple(rows),
        numbers=(2, 3, 4),
    )


def precision_rows(evidence: Evidence) -> Rows:
    """Each lower precision beside float32, on each set of images."""
    rows = []
    for target, about in precisions(evidence).items():
        for name, score in scores(about).items():
            rows.append(
                (
                    target,
                    name,
                    number_text(number(score, "images") or 0).partition(".")[0],
                    _share(score, "reference_accuracy"),
                    _share(score, "accuracy"),
                    _share(score, "agreement"),
                    _decibel(score),
                    _gates(about),
                )
            )
    return Rows(
        caption="Lower precision beside float32",
        heads=("precision", "set", "images", "float32 right", "right", "same", "SQNR", "gates"),
        rows=tuple(rows),
        numbers=(2, 3, 4, 5, 6),
    )


def layer_rows(evidence: Evidence) -> Rows:
    """How many layers each precision has, and what else calibrate found."""
    rows = []
    for target, about in precisions(evidence).items():
        layers = listing(about, "layers")
        kept = [row for row in layers if entry(row, "precision") == "fp32"]
        low = number(about, "low_share")
        before, after = (number(about, f"bytes_{when}") for when in ("before", "after"))
        rows.append(
            (
                target,
                f"{len(layers) - len(kept)} of {len(layers)}",
                UNKNOWN if low is None else share_text(low),
                f"{after / before:.2f}" if before and after else UNKNOWN,
                _time(mapping(about, "latency", "ratio")),
            )
        )
    return Rows(
        caption="What was lowered, and what it brought in calibrate",
        heads=("precision", "layers", "of the work", "size", "time"),
        rows=tuple(rows),
        numbers=(1, 2, 3, 4),
    )


def placement_rows(evidence: Evidence) -> Rows:
    """The placements that build measured."""
    candidates = listing(evidence, "build", "measured", "candidates")
    rows = []
    for candidate in candidates:
        median, ratio = number(candidate, "median_ms"), mapping(candidate, "ratio")
        rows.append(
            (
                str(entry(candidate, "candidate")),
                str(entry(candidate, "precision")),
                UNKNOWN if median is None else number_text(median),
                _time(ratio),
                "chosen" if entry(candidate, "chosen") is True else "",
            )
        )
    return Rows(
        caption="Placements that build measured, when it did; the time is in units of the first",
        heads=("placement", "precision", "p50 ms", "time", ""),
        rows=tuple(rows),
        numbers=(2, 3),
    )


def _share(score: Mapping[str, Any], name: str) -> str:
    found = number(score, name)
    return _NOTHING if found is None else exact_share_text(found)


def _decibel(score: Mapping[str, Any]) -> str:
    found = number(score, "sqnr_db")
    return UNKNOWN if found is None else f"{found:.1f} dB"


def _gates(about: Mapping[str, Any]) -> str:
    checks = listing(about, "checks")
    failed = sum(entry(check, "passed") is not True for check in checks)
    return f"{failed} FAILED" if failed else f"{len(checks)} passed"


def _time(ratio: Mapping[str, Any]) -> str:
    value, low, high = (number(ratio, key) for key in ("median", "low", "high"))
    if value is None or low is None or high is None:
        return UNKNOWN
    return f"{value:.2f}" if low == high else f"{value:.2f} ({low:.2f} to {high:.2f})"
