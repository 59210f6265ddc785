"""The fused engine beside PyTorch, the unfused export on ONNX Runtime, and ResNets.

    python benchmarks/cpu.py [--variant parnet-s] [--budget 60]

What ``parnet-deploy bench`` does, on random weights: a process for each arm, timed in turns, every
usable core. ONNX Runtime never spins; PyTorch runs at its own defaults.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from networks import write_checkpoint
from report import save
from rich.console import Console
from rich.table import Table

from parnet_deploy.bench.bench_step import BenchOptions, bench_to_deployment
from parnet_deploy.bench.result import OURS
from parnet_deploy.builder.build import BuildOptions, build_to_deployment
from parnet_deploy.export.export_step import export_to_deployment
from parnet_deploy.export.fuse_step import FuseOptions, fuse_to_deployment
from parnet_deploy.machine.cores import usable_cores
from parnet_deploy.machine.describe import describe_machine

VS = ("torch", "onnxruntime", "resnet34", "resnet50")


def main() -> None:
    """Measure and write ``results/cpu-<variant>.json``."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--variant", default="parnet-s")
    parser.add_argument("--budget", type=float, default=60.0, help="Seconds to time.")
    args = parser.parse_args()
    environment = describe_machine()
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch) / args.variant
        checkpoint = write_checkpoint(args.variant, Path(scratch) / f"{args.variant}.pth")
        fuse_to_deployment(checkpoint, directory, FuseOptions(activation="silu"))
        export_to_deployment(directory)
        plan = build_to_deployment(directory, BuildOptions(placement="one")).report["plan"]
        options = BenchOptions(plan=plan, vs=VS, mode="saturated", budget_s=args.budget)
        report = bench_to_deployment(directory, options).report
    if report["left_out"]:
        raise SystemExit(f"left out: {report['left_out']}")
    arms, ratios = rows(report)
    rounds = report["rounds"]["saturated"]
    save(
        f"cpu-{args.variant}",
        arms=arms,
        ratios=ratios,
        conditions={"input": "1x3x224x224", "threads": usable_cores(), "rounds": rounds},
        environment=environment,
        noise=report["noise"],
        roofline=report["roofline"],
    )
    table = Table(title=f"cpu-{args.variant}: {rounds} rounds")
    for column in ("arm", "p50 ms", "ours / arm", "95 %", "error"):
        table.add_column(column, justify="left" if column == "arm" else "right")
    for arm, ratio in zip(arms, ratios, strict=True):
        interval = f"{ratio['low']:.3f}-{ratio['high']:.3f}"
        error = f"{arm['check']['error']:.1e}"
        table.add_row(
            arm["name"], f"{arm['p50_ms']:.2f}", f"{ratio['median']:.3f}", interval, error
        )
    console = Console(width=100)
    console.print(table)
    console.print(*report["verdict"], sep="\n")


def rows(report: dict[str, Any]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Arms with their samples, and ours in units of each."""
    arms, ratios = [], []
    for name, arm in report["arms"].items():
        mode = arm["modes"]["saturated"]
        quantiles = {f"{q}_ms": v and v["value"] for q, v in mode["quantiles_ms"].items()}
        about = {key: value for key, value in arm.items() if key not in ("modes", "facts")}
        arms.append({"name": name, **about, **quantiles, "samples_ms": mode["samples_ms"]})
        ratio = mode["ratio_to_ours"]
        turned = {"median": 1 / ratio["value"], "low": 1 / ratio["high"], "high": 1 / ratio["low"]}
        ratios.append({"arm": OURS, "base": name, **turned})
    return arms, ratios


if __name__ == "__main__":
    main()
