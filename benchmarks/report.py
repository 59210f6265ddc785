"""Write a benchmark's JSON and print its table, as README.md in this folder asks."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from parnet_deploy.machine.describe import describe_machine
from parnet_deploy.measure import Latency, compare_latency

RESULTS = Path(os.environ.get("PARNET_BENCH_RESULTS", Path(__file__).parent / "latest"))
"""Yours; the committed ones are in results/, and the README's table is made from those."""


def write_results(
    name: str,
    latencies: Mapping[str, Latency],
    *,
    ours: str,
    errors: Mapping[str, float],
    conditions: Mapping[str, Any],
    environment: Mapping[str, Any],
    **more: Any,
) -> None:
    """Save raw samples and ratios to ``results/<name>.json`` and print the table.

    ``more`` are further keys of the file.

    A ratio says how long ``ours`` takes in units of the arm: 0.4 beside torch means 0.4 of torch.
    """
    ratios = {arm: compare_latency(latencies[ours], latencies[arm]) for arm in latencies}
    save(
        name,
        arms=[
            {"error_of_largest_logit": errors[arm], **latency.to_json()}
            for arm, latency in latencies.items()
        ],
        ratios=[{"arm": ours, "base": arm, **r.to_json()} for arm, r in ratios.items()],
        conditions=conditions,
        environment=environment,
        **more,
    )
    stated = ", ".join(f"{key} {value}" for key, value in conditions.items())
    table = Table(title=f"{name}: {stated}")
    for column in ("arm", "p50 ms", "p90 ms", "p99 ms", f"{ours} / arm", "95 %", "error"):
        table.add_column(column, justify="left" if column == "arm" else "right")
    for arm, latency in latencies.items():
        ratio = ratios[arm]
        quantiles = (f"{latency.quantile_ms(q):.3f}" for q in (0.5, 0.9, 0.99))
        interval = f"{ratio.low:.3f}-{ratio.high:.3f}"
        table.add_row(arm, *quantiles, f"{ratio.median:.3f}", interval, f"{errors[arm]:.1e}")
    Console(width=100).print(table)


def save(
    name: str,
    *,
    arms: Sequence[Mapping[str, Any]],
    ratios: Sequence[Mapping[str, Any]],
    conditions: Mapping[str, Any],
    environment: Mapping[str, Any],
    folder: Path | None = None,
    **more: Any,
) -> Path:
    """Write ``<folder>/<name>.json``, by default to ``RESULTS``; ``more`` are further keys."""
    document = {
        "benchmark": name,
        "schema": 1,
        "made_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "git": git_state(),
        "environment": {"before": dict(environment), "after": describe_machine()},
        "conditions": dict(conditions),
        **more,
        "arms": list(arms),
        "ratios": list(ratios),
    }
    path = (folder or RESULTS) / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return path


def git_state() -> dict[str, Any]:
    """Commit, and whether anything that git tracks was changed."""
    try:
        commit = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True
        ).stdout.strip()
        changed = subprocess.run(
            ["git", "status", "--porcelain", "--untracked-files=no"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return {}
    return {"commit": commit, "clean": not changed.strip()}
