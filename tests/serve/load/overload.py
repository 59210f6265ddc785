"""More clients than the queue has room for: ``make overload``.

A storm of clients in one process, and a few that measure in another. Every request must be
answered, with the values of its own image or a refusal that says when to come back; what was
accepted must be answered before its deadline; refusals must be quick.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.serve.load.known import Known, make_known
from tests.serve.load.processes import Running, drive, serving
from tests.serve.load.watch import look

QUEUE = 64
REFUSAL_P99_MS = 100.0


def overload(
    running: Running, known: Known, directory: Path, *, seconds: float, clients: int = 200
) -> dict[str, Any]:
    """Let them loose; reports of the storm, of the probe, and of the server's fds."""
    grpc = clients // 4
    probe = {"rest": 3, "grpc": 1, "seconds": seconds, "pause_s": 0.05}
    storm = {
        "rest": clients - grpc - probe["rest"],
        "grpc": grpc - probe["grpc"],
        "seconds": seconds,
        "deadlines_ms": (300, 5000),
    }
    before = look(running.pid)
    of_storm, of_probe = drive(running, known, directory, storm, probe)
    after = look(running.pid)
    cpu = (after.cpu_s - before.cpu_s) / (after.at_s - before.at_s)
    waited = (after.waited_s - before.waited_s) / (after.at_s - before.at_s)
    server = {"cpu": cpu, "waited_for_cpu": waited, "fds": after.fds - before.fds}
    return {"storm": of_storm, "probe": of_probe, "server": server}


def broken(report: Mapping[str, Any]) -> list[str]:
    """What a report shows that must not be."""
    found = []
    for name in ("unexpected", "unanswered", "wrong", "mixed", "unhelpful", "late_by_server"):
        if report[name]:
            found.append(f"{report[name]} {name}: {report['examples'][:3]}")
    if not report["ok"]:
        found.append("nothing was answered")
    return found


def main() -> int:
    """Run it for OVERLOAD_SECONDS (30) and print the report; 3 if something does not hold."""
    from tests.serve.load.deployments import make_deployment

    seconds = float(os.environ.get("OVERLOAD_SECONDS", "30"))
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        path = make_deployment(directory)
        known = make_known(path, 16)
        with serving([path], directory, service={"max_queue": QUEUE}) as running:
            drive(running, known, directory, {"rest": 2, "grpc": 2, "each": 20})  # warm-up
            report = overload(running, known, directory, seconds=seconds)
    print(json.dumps(report, indent=1))
    problems = [line for part in ("storm", "probe") for line in broken(report[part])]
    refused = report["probe"]["refused_ms"] or {"p99": 0.0}
    if refused["p99"] > REFUSAL_P99_MS:
        problems.append(f"refusals: p99 {refused['p99']:.0f} ms, expected {REFUSAL_P99_MS:.0f}")
    for line in problems:
        print(line, file=sys.stderr)
    return 3 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
