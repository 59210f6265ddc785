"""Does ``bench --compare`` find 10 % more arithmetic, and leave an unchanged rerun alone?

    python benchmarks/regression.py [--unchanged 20] [--slower 10] [--budget 40]

With the real command: one report to compare with, then reruns of the same ParNet-S and of one with
10 % more multiply-accumulates (two more blocks in the first stream), in turns. About a minute each.
What has to hold: nine of ten are right. On a busy machine the command says that it cannot tell.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

from networks import write_checkpoint
from report import save

from parnet_deploy.builder.build import BuildOptions, build_to_deployment
from parnet_deploy.export.export_step import export_to_deployment
from parnet_deploy.export.fuse_step import FuseOptions, fuse_to_deployment
from parnet_deploy.machine.describe import describe_machine
from parnet_deploy.spec import RELEASED

VARIANT, SLOWER = "parnet-s", "parnet-s-slower"
BLOCKS = (7, 6, 6, 1)  # of the slower one; ParNet-S has 5, 6, 6, 1
KEPT = ("verdict", "by", "modes", "costs", "failures", "warnings", "notes")


def main() -> None:
    """Measure and write ``regression.json``."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--unchanged", type=int, default=20, help="reruns of the same")
    parser.add_argument("--slower", type=int, default=10, help="runs with 10 %% more arithmetic")
    parser.add_argument("--budget", type=float, default=40.0, help="seconds, as of the command")
    parser.add_argument("--vs", default="none", help="other arms beside, as of the command")
    args = parser.parse_args()
    environment = describe_machine()
    RELEASED[SLOWER] = replace(RELEASED[VARIANT], num_blocks=BLOCKS)
    macs = {name: sum(RELEASED[name].macs(224, 224).values()) for name in (VARIANT, SLOWER)}
    with tempfile.TemporaryDirectory() as scratch:
        same, slower = (_deploy(name, Path(scratch)) for name in (VARIANT, SLOWER))
        options = ("--vs", args.vs, "--budget", str(args.budget))
        before = Path(scratch) / "before.json"
        first = _bench(same, *options)
        before.write_text(json.dumps(first["document"]["report"]), encoding="utf-8")
        kinds = _in_turns({"unchanged": args.unchanged, "slower": args.slower})
        runs = []
        for number, kind in enumerate(kinds, 1):
            directory = same if kind == "unchanged" else slower
            run = _summary(kind, _bench(directory, *options, "--compare", str(before)))
            runs.append(run)
            print(f"{number} of {len(kinds)}: {kind}: {_text(run)}", flush=True)
    tables = {
        kind: dict(Counter(run["verdict"] for run in runs if run["kind"] == kind))
        for kind in ("unchanged", "slower")
    }
    path = save(
        "regression",
        arms=[],
        ratios=[],
        conditions={
            "budget_s": args.budget,
            "vs": args.vs,
            "macs": macs,
            "macs_ratio": macs[SLOWER] / macs[VARIANT],
        },
        environment=environment,
        verdicts=tables,
        first=_disturbance(first["document"]["report"]),
        runs=runs,
    )
    print(f"{json.dumps(tables)}; every run is in {path}")


def _deploy(name: str, scratch: Path) -> Path:
    directory = scratch / name
    checkpoint = write_checkpoint(name, scratch / f"{name}.pth")
    fuse_to_deployment(checkpoint, directory, FuseOptions(activation="silu"))
    export_to_deployment(directory)
    build_to_deployment(directory, BuildOptions(placement="one"))
    return directory


def _bench(directory: Path, *options: str) -> dict[str, Any]:
    """The command, and its exit code: 3 is a regression, anything else but 0 ends this."""
    command = [sys.executable, "-m", "parnet_deploy", "bench", str(directory), *options]
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}
    done = subprocess.run(
        [*command, "--json"], capture_output=True, text=True, check=False, env=environment
    )
    if done.returncode not in (0, 3) or not done.stdout:
        raise SystemExit(f"bench ended with {done.returncode}: {done.stderr}")
    return {"exit_code": done.returncode, "document": json.loads(done.stdout)}


def _summary(kind: str, found: dict[str, Any]) -> dict[str, Any]:
    comparison, report = found["document"]["comparison"], found["document"]["report"]
    kept = {name: comparison[name] for name in KEPT}
    return {
        "kind": kind,
        "exit_code": found["exit_code"],
        **kept,
        "during": _disturbance(report),
        "noise": report["noise"],
    }


def _disturbance(report: dict[str, Any]) -> dict[str, Any]:
    during: dict[str, Any] = report["environment"]["during"]
    return during


def _in_turns(counts: dict[str, int]) -> list[str]:
    """Each kind as often as asked for, spread evenly over the time that it takes."""
    places = [((i + 0.5) / count, kind) for kind, count in counts.items() for i in range(count)]
    return [kind for _, kind in sorted(places)]


def _text(run: dict[str, Any]) -> str:
    changes = ", ".join(
        f"{mode} {one['change']['value']:.3f} ({one['change']['low']:.3f} to "
        f"{one['change']['high']:.3f})"
        for mode, one in run["modes"].items()
    )
    return f"{run['verdict']}, exit {run['exit_code']}, {changes}, {run['during']['foreign_cores']}"


if __name__ == "__main__":
    main()
