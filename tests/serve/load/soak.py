"""At 80 % of what it can do, and nothing goes wrong: for that see ``tests.soak``.

Every answer is checked, and the server's memory, files and threads must not grow after a warm-up.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.serve.load.known import Known
from tests.serve.load.processes import Running, drive
from tests.serve.load.watch import Watch, look

SHARE = 0.8
CLIENTS = {"rest": 6, "grpc": 4}
GROWTH = {"rss_bytes": 16 * 2**20, "fds": 2.0, "threads": 2.0}
"""What may be added after the warm-up, in all, however long it takes."""


def soak(running: Running, known: Known, directory: Path, *, seconds: float) -> dict[str, Any]:
    """Measure what it can do, then load it to ``SHARE`` of that while it is watched."""
    idle = look(running.pid)
    (measured,) = drive(
        running, known, directory, {**CLIENTS, "seconds": min(10.0, max(3.0, seconds / 10))}
    )
    rate = SHARE * measured["ok_per_s"]
    with Watch(running.pid, every_s=min(1.0, seconds / 60)) as watch:
        (report,) = drive(running, known, directory, {**CLIENTS, "seconds": seconds, "rate": rate})
    growth = {name: watch.growth(name) for name in GROWTH}
    after = look(running.pid)
    return {
        "capacity_per_s": measured["ok_per_s"],
        "rate_per_s": rate,
        "measured": measured,
        "report": report,
        "growth": growth,
        "fds": [idle.fds, after.fds],
        "rss_mib": [sample.rss_bytes / 2**20 for sample in watch.samples],
    }


def grown(found: dict[str, Any]) -> list[str]:
    """What grew more than it may."""
    return [
        f"{name}: grew by {found['growth'][name]:.0f}, expected at most {limit:.0f}"
        for name, limit in GROWTH.items()
        if found["growth"][name] > limit
    ]
