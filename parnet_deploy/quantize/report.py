"""What was done to the precision of each layer, what it cost and what it brought."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..html import table
from .charts import bars, histogram
from .convert import Layer
from .html import page
from .search import Found, share
from .table import CalibrationTable

SHOWN_RANGES = 12


def build_report(
    *,
    target: str,
    found: Found,
    layers: Sequence[Layer],
    reasons: Mapping[str, str],
    gates: Mapping[str, float],
    weight_limit: int | None,
    layer_sqnr: Mapping[str, float],
    table: CalibrationTable,
    sizes: tuple[int, int],
    latency: Mapping[str, Any] | None,
    machine: Mapping[str, Any],
    sets: Mapping[str, int],
    histograms: Mapping[str, Any],
) -> dict[str, Any]:
    """Plain JSON types: what ``reports/precision-<target>.json`` holds.

    Args:
        target: Name of the precision.
        found: What the search ended with.
        layers: Every layer.
        reasons: Layers that could not be lowered, and why.
        gates: The limits.
        weight_limit: Largest weight code, None where weights are no integers.
        layer_sqnr: Of each layer's output, in decibel.
        table: The calibration.
        sizes: Bytes of the graphs before and after.
        latency: Medians and ratio on this machine, None where the engines do not run here.
        machine: Where it was measured.
        sets: Images of each evaluation set.
        histograms: From the calibration's report.
    """
    precision = target.partition("-")[0]
    kept = set(found.keep)
    rows = [
        {
            "layer": layer.name,
            "part": layer.part,
            "precision": "fp32" if layer.name in kept else precision,
            "macs": layer.macs,
            "sqnr_db": layer_sqnr[layer.name],
            "sensitivity_db": found.sensitivity.get(layer.name),
            "reason": _reason(layer.name, kept, reasons),
        }
        for layer in layers
    ]
    parts = dict.fromkeys(layer.part for layer in layers)
    return {
        "target": target,
        "precision": precision,
        "weight_limit": weight_limit,
        "low_share": share(layers, kept),
        "parts": {
            part: share([layer for layer in layers if layer.part == part], kept) for part in parts
        },
        "layers": rows,
        "search": list(found.steps),
        "gates": dict(gates),
        "checks": [check.to_json() for check in found.checks],
        "measured": found.measured.to_json(),
        "sets": dict(sets),
        "calibration": {
            "method": table.method,
            "images": table.images,
            "data_sha256": table.data_sha256,
        },
        "ranges": {
            name: {"low": r.low, "high": r.high, "clipped": r.clipped}
            for name, r in table.tensors.items()
        },
        "bytes_before": sizes[0],
        "bytes_after": sizes[1],
        "latency": latency and dict(latency),
        "machine": dict(machine),
        "histograms": dict(histograms),
    }


def _reason(layer: str, kept: set[str], reasons: Mapping[str, str]) -> str | None:
    if layer in reasons:
        return f"does not fit float16: {reasons[layer]}"
    return "put back by the search, or asked for" if layer in kept else None


def draw_report(name: str, report: Mapping[str, Any]) -> str:
    """The report as one HTML file that needs nothing else."""
    layers = report["layers"]
    by_db = {row["layer"]: row["sqnr_db"] for row in layers}
    alone = {r["layer"]: r["sensitivity_db"] for r in layers if r["sensitivity_db"] is not None}
    kept = {row["layer"] for row in layers if row["precision"] == "fp32"}
    clipped = sorted(report["ranges"].items(), key=lambda item: -item[1]["clipped"])
    sections = [
        ("Result", _facts(report)),
        ("Gates", _gates(report["checks"])),
        ("Sets", _sets(report["measured"])),
        ("Output of each layer, SQNR in dB", bars(by_db, marked=kept)),
    ]
    if alone:
        title = "Each layer alone in low precision, SQNR of the logits in dB (short: sensitive)"
        sections.append((title, bars(alone, marked=kept)))
    sections += [
        ("Search", _search(report["search"])),
        ("Work in low precision, by part", bars({k: 100 * v for k, v in report["parts"].items()})),
        ("Layers", _layers(layers)),
        ("Ranges that clip most on held-out images", _ranges(clipped[:SHOWN_RANGES])),
        ("Values, and the range that is kept", "".join(map(_histogram, _shown(report)))),
    ]
    return page(f"{name}: {report['target']}", sections)


def _facts(report: Mapping[str, Any]) -> str:
    latency, machine = report["latency"], report["machine"]
    before, after = report["bytes_before"], report["bytes_after"]
    time = "not measured: its engines do not run here"
    if latency is not None:
        ratio = latency["ratio"]
        time = (
            f"{latency['low_ms']:.3f} ms instead of {latency['float32_ms']:.3f} ms, ratio "
            f"{ratio['median']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f}, 95 %), part by part"
        )
    calibration = report["calibration"]
    rows = [
        ("precision", report["target"]),
        ("work in low precision", f"{report['low_share']:.1%}"),
        ("graphs", f"{after} bytes instead of {before}, ratio {after / before:.3f}"),
        ("latency", time),
        ("calibration", f"{calibration['method']} on {calibration['images']} images"),
        ("largest weight code", report["weight_limit"] or "no integers"),
        ("machine", f"{machine['cpu']}, {machine['cores_usable']} usable cores"),
    ]
    return table(("what", "value"), rows)


def _gates(checks: Sequence[Mapping[str, Any]]) -> str:
    rows = [("passed" if check["passed"] else "FAILED", check["text"]) for check in checks]
    return table(("", "gate"), rows)


def _sets(measured: Mapping[str, Any]) -> str:
    rows = []
    for how in ("kernel", "emulated"):
        for name, found in (measured[how] or {}).items():
            right = [found[k] for k in ("reference_accuracy", "accuracy")]
            accuracy = [f"{100 * a:.2f} %" if a is not None else "no labels" for a in right]
            same = f"{100 * found['agreement']:.2f} %"
            rows.append((how, name, found["images"], *accuracy, same, f"{found['sqnr_db']:.2f}"))
    heads = ("computed by", "set", "images", "float32", "this", "same answer", "SQNR dB")
    return table(heads, rows)


def _search(steps: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        (
            len(step["keep"]),
            step["keep"][-1] if step["keep"] else "none",
            f"{step.get('share', 0):.1%}",
            "; ".join(step["failed"]) or "passed",
        )
        for step in steps
    ]
    return table(("layers in float32", "last put back", "work in low precision", "gates"), rows)


def _layers(rows: Sequence[Mapping[str, Any]]) -> str:
    keys = ("layer", "part", "precision", "macs")
    lines = [
        (*(row[key] for key in keys), f"{row['sqnr_db']:.1f}", row["reason"] or "") for row in rows
    ]
    return table((*keys, "output SQNR dB", "why"), lines)


def _ranges(rows: Sequence[tuple[str, Mapping[str, float]]]) -> str:
    lines = [
        (name, f"{r['low']:.4g}", f"{r['high']:.4g}", f"{100 * r['clipped']:.3f} %")
        for name, r in rows
    ]
    return table(("tensor", "from", "to", "clipped"), lines)


def _shown(report: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    return list(report["histograms"].items())


def _histogram(item: tuple[str, Mapping[str, Any]]) -> str:
    name, found = item
    return histogram(
        name,
        found["counts"],
        span=(found["min"], found["max"]),
        kept=(found["low"], found["high"]),
    )
