"""Every backend of the CPU that is installed, and what ``build --backend auto`` makes of them.

    python benchmarks/cpu_backends.py [--variant parnet-s] [--budget 120]

Random weights. Each plan is built as a user would build it, then all of them are opened in
processes of their own and timed in turns on every usable core; nothing spins while it waits. The
answer of each is checked first. INT8 is calibrated on random images with open gates: time means
something there, accuracy does not.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from networks import write_checkpoint
from precision import quantize
from report import write_results

from parnet_deploy.bench.arms.ours import open_ours
from parnet_deploy.builder.build import BuildOptions, build_to_deployment
from parnet_deploy.builder.gpus import installed_backends
from parnet_deploy.contest.arm import ArmSpec
from parnet_deploy.contest.contest import Contest
from parnet_deploy.deployment import Deployment
from parnet_deploy.errors import BackendError, CheckFailedError, SpecError
from parnet_deploy.export.export_step import export_to_deployment
from parnet_deploy.export.fuse_step import FuseOptions, fuse_to_deployment
from parnet_deploy.machine.cores import usable_cores
from parnet_deploy.machine.describe import describe_machine
from parnet_deploy.measure import Latency
from parnet_deploy.steps import read_reference

AUTO = "auto"


def main() -> None:
    """Measure and write ``cpu-backends-<variant>.json``."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--variant", default="parnet-s")
    parser.add_argument("--budget", type=float, default=120.0, help="Seconds to time.")
    args = parser.parse_args()
    environment = describe_machine()
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch) / args.variant
        checkpoint = write_checkpoint(args.variant, Path(scratch) / f"{args.variant}.pth")
        fuse_to_deployment(checkpoint, directory, FuseOptions(activation="silu"))
        export_to_deployment(directory)
        quantize(directory, None)
        plans, left_out, tables = build(directory)
        latencies, errors = measure(directory, plans, args.budget)
    write_results(
        f"cpu-backends-{args.variant}",
        latencies,
        ours=f"{AUTO} fp32",
        errors=errors,
        conditions={
            "input": "1x3x224x224",
            "threads": usable_cores(),
            "rounds": len(next(iter(latencies.values())).samples_ms),
        },
        environment=environment,
        left_out=left_out,
        builds=tables,
    )


def build(directory: Path) -> tuple[dict[str, str], dict[str, str], dict[str, Any]]:
    """Plans by arm, what could not be built and why, and the tables that ``auto`` measured."""
    plans, left_out, tables = {}, {}, {}
    for precision in ("fp32", "bf16", "int8"):
        for backend in (*installed_backends(), AUTO):
            if precision == "bf16" and backend == AUTO:
                continue  # one backend has it
            name = f"{backend} {precision}"
            options = BuildOptions(backend=backend, precision=precision)
            try:
                report = build_to_deployment(directory, options).report
            except (BackendError, CheckFailedError, SpecError) as error:
                left_out[name] = str(error)
                continue
            plans[name] = report["plan"]
            if backend == AUTO:
                tables[name] = report["measured"]["candidates"]
    return plans, left_out, tables


def measure(
    directory: Path, plans: dict[str, str], budget_s: float
) -> tuple[dict[str, Latency], dict[str, float]]:
    """Latencies and errors of the plans, all of them open at once, in turns."""
    reference = read_reference(Deployment.open(directory))
    entry = f"{open_ours.__module__}:{open_ours.__name__}"
    arms = [
        ArmSpec(name=name, entry=entry, options={"directory": str(directory), "plan": plan})
        for name, plan in plans.items()
    ]
    with Contest(arms, reference.image, reference.logits, required=list(plans)) as contest:
        contest.check()
        samples = contest.rounds("saturated", budget_s=budget_s)
        found = dict(contest.entrants)
    latencies = {
        name: Latency(name=name, samples_ms=tuple(times), first_ms=found[name].first_ms)
        for name, times in samples.items()
    }
    errors = {name: entrant.check["error"] for name, entrant in found.items() if entrant.check}
    return latencies, errors


if __name__ == "__main__":
    main()
