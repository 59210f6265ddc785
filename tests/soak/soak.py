"""An hour of everything at once, with random faults: ``make soak``.

A server under REST and gRPC clients at a steady rate, and a program with a runtime of its own.
Meanwhile engines fail, write NaN and hang; clients break off, are killed and send nonsense;
deployments are replaced. At the end nothing may be lost, wrong, grown or slower.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.serve.load.deployments import make_deployment
from tests.serve.load.known import Known, make_known
from tests.serve.load.overload import broken
from tests.serve.load.processes import Running, drive, report_of, serving, start, start_clients
from tests.serve.load.watch import Watch, look
from tests.soak.metrics import metric
from tests.soak.random_faults import TIMEOUT_S
from tests.soak.swaps import Operator

SHARE = 0.3
"""Of what the server can do alone: the rest is for swaps, vandals and the other program."""
CLIENTS = {"rest": 4, "grpc": 4}
EMBEDDED_PER_S, VANDALS_PER_S = 10.0, 4.0  # of each thread
SERVICE = {"max_queue": 64, "prove_every_s": 5.0}
MODEL = {"timeout_s": TIMEOUT_S, "check_finite": True, "slots": 2}  # one may hang
OWED = ("parnet_serve_in_flight_requests", "parnet_serve_waiting_images")
"""What the server must count down to 0."""
SWAPS = 25
"""Before the watch begins: memory of the first ones is kept, and used again by those after them."""
_EXPECTED = re.compile(r"\(injected\)|NaN or infinities")

SLOWER = {"p50": 2.0, "typical_p99": 10.0}

GROWTH = {"rss_bytes": 24 * 2**20, "fds": 2.0, "threads": 2.0}
"""What may be added after the warm-up, in all: memory goes up and down by that with each swap."""
"""How many times as long answers of the last third may take as those of the first.

Twice the median is more than a shared machine changes by itself. The 99th percentile changed
tenfold between the thirds of six minutes in which others computed: it catches only what is broken.
"""

GROWTH = {"rss_bytes": 24 * 2**20, "fds": 2.0, "threads": 2.0}
"""What may be added after the warm-up, in all: memory goes up and down by that with each swap."""
"""How many times the typical 99th percentile of the last third may be that of the first.

Chosen so that a shared machine, whose speed changes by 2 or 3 within minutes, does not fail; what
gets slower with each call gets slower by more than that within an hour.
"""


def soak(deployment: Path, known: Known, directory: Path, *, seconds: float) -> dict[str, Any]:
    """Run it all for so long; the report."""
    more = {"service": SERVICE, "model": MODEL, "module": "tests.soak.serve_faulty"}
    with serving([deployment], directory, **more) as running:
        found = _load(running, deployment, known, directory, seconds)
        (found["after"],) = drive(
            running, known, directory, {**CLIENTS, "each": 5, "failures": True}
        )
        found["metrics"] = {name: metric(running, name) for name in OWED}
        found["proofs"] = metric(running, "parnet_serve_proofs_total", outcome="passed")
        found["swaps"] = (
            metric(running, "parnet_serve_swaps_total", outcome="done") - found["swaps"]
        )
    log = running.complaints()
    found["complaints"] = _complaints(log)
    return found | json.loads(log.splitlines()[-1])


def _load(
    running: Running, deployment: Path, known: Known, directory: Path, seconds: float
) -> dict[str, Any]:
    warm_s = min(10.0, max(3.0, seconds / 20))
    path, own = directory / "known.npz", directory / "embedded"
    (capacity,) = drive(running, known, directory, {**CLIENTS, "seconds": warm_s, "failures": True})
    rate = SHARE * capacity["ok_per_s"]
    own.mkdir(exist_ok=True)
    ports = {"port": running.port, "grpc_port": running.grpc_port}
    common = {"known": str(path), "seconds": seconds}
    mine = {**common, "deployment": str(_copy(deployment, own)), "per_s": EMBEDDED_PER_S}
    load = {**CLIENTS, "seconds": seconds, "rate": rate, "failures": True}
    operator = Operator(running, deployment, path, every_s=min(10.0, seconds / 15))
    operator.warm_up(SWAPS)
    swaps = metric(running, "parnet_serve_swaps_total", outcome="done")
    embedded = start("tests.soak.embedded", mine)
    vandals = start("tests.soak.vandals", {**common, **ports, "per_s": VANDALS_PER_S})
    clients = start_clients(running, path, load)
    every_s = min(2.0, seconds / 100)
    idle = look(running.pid)
    with (
        Watch(running.pid, every_s=every_s) as server,
        Watch(embedded.pid, every_s=every_s) as program,
        operator,
    ):
        served = report_of(clients)
    reports = {"embedded": report_of(embedded), "vandals": report_of(vandals)}
    return {
        "seconds": seconds,
        "rate_per_s": rate,
        "served": served,
        **reports,
        "operator": operator.acts,
        "swaps": swaps,
        "growth": {
            "server": {name: server.growth(name) for name in GROWTH},
            "embedded": {name: program.growth(name) for name in GROWTH},
        },
        "rss_mib": {
            "server": [round(sample.rss_bytes / 2**20, 1) for sample in server.samples],
            "embedded": [round(sample.rss_bytes / 2**20, 1) for sample in program.samples],
        },
        "fds": [idle.fds, look(running.pid).fds],
    }


def problems(found: Mapping[str, Any]) -> list[str]:
    """What a report shows that must not be."""
    said = [f"served: {line}" for part in ("served", "after") for line in broken(found[part])]
    embedded, vandals = found["embedded"], found["vandals"]
    said += [f"embedded: {line}" for line in embedded["problems"]]
    said += [f"vandals: {line}" for line in vandals["problems"]]
    ends, injected = embedded["ends"], embedded["injected"]
    if ends.get("wrong") or not ends.get("ok"):
        said.append(f"embedded: {ends.get('wrong', 0)} wrong, {ends.get('ok', 0)} right answers")
    if ends.get("timed out", 0) < injected.get("hang", 0):
        said.append("embedded: an engine hung, and nobody was told")
    for kind in ("fail", "bug", "nan"):
        lost = injected.get(kind, 0) - ends.get(kind, 0)
        if not 0 <= lost <= ends.get("timed out", 0):
            said.append(f"embedded: {injected.get(kind, 0)} {kind}, {ends.get(kind, 0)} told")
    for name, growth in found["growth"].items():
        said += [
            f"{name}: {what} grew by {growth[what]:.0f}, expected at most {limit:.0f}"
            for what, limit in GROWTH.items()
            if growth[what] > limit
        ]
    for name in ("served", "embedded"):
        for what, ratio in slower(found[name]["ok_ms_by_thirds"]).items():
            if ratio > SLOWER[what]:
                said.append(f"{name}: {what} is {ratio:.1f} times what it was at the beginning")
    if found["proofs"] < 1 or found["swaps"] < 1:
        said.append(f"server: {found['proofs']:g} proofs, {found['swaps']:g} swaps, expected some")
    said += [f"metrics: {name} is {value:g}" for name, value in found["metrics"].items() if value]
    said += [f"the server's log: {line}" for line in found["complaints"]]
    return said


def slower(thirds: list[dict[str, float] | None]) -> dict[str, float]:
    """Percentiles of the last third in units of the first."""
    first, _, last = thirds
    return {what: last[what] / first[what] for what in SLOWER} if first and last else {}


def _complaints(log: str) -> list[str]:
    """Tracebacks that are not of an injected bug."""
    blocks = re.split(r"(?m)^(?=Traceback )", log)[1:]
    return [block[:1000] for block in blocks if not _EXPECTED.search(block)]


def _copy(deployment: Path, directory: Path) -> Path:
    """The same deployment elsewhere: the other program's own."""
    return Path(shutil.copytree(deployment, directory / deployment.name, dirs_exist_ok=True))


def main() -> int:
    """Run it for SOAK_MINUTES (60) and print the report; 3 if something does not hold."""
    seconds = 60 * float(os.environ.get("SOAK_MINUTES", "60"))
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        path = make_deployment(directory)
        found = soak(path, make_known(path, 16), directory, seconds=seconds)
    found["problems"] = problems(found)
    found["slower"] = {
        part: slower(found[part]["ok_ms_by_thirds"]) for part in ("served", "embedded")
    }
    print(json.dumps(found, indent=1))
    for line in found["problems"]:
        print(line, file=sys.stderr)
    return 3 if found["problems"] else 0


if __name__ == "__main__":
    sys.exit(main())
