"""The fused engine beside eager PyTorch and the unfused export on ONNX Runtime.

    python benchmarks/cpu.py [--variant parnet-s] [--rounds 60]

One process, alternated, spinning off, every usable core.
"""

from __future__ import annotations

import os

os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # before torch starts its threads

import argparse
import tempfile
from pathlib import Path

from arms import bare_session, time_arms
from networks import write_checkpoint
from report import write_results

from parnet_deploy import Runtime
from parnet_deploy.builder.build import BuildOptions, build_to_deployment
from parnet_deploy.deployment import Deployment
from parnet_deploy.export.baselines import torch_arm, unfused_arm
from parnet_deploy.export.export_step import export_to_deployment
from parnet_deploy.export.fuse_step import FuseOptions, fuse_to_deployment
from parnet_deploy.export.trained import training_form
from parnet_deploy.machine.cores import usable_cores
from parnet_deploy.machine.describe import describe_machine
from parnet_deploy.measure import Arm
from parnet_deploy.steps import read_reference


def main() -> None:
    """Measure and write ``results/cpu-<variant>.json``."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--variant", default="parnet-s")
    parser.add_argument("--rounds", type=int, default=60)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch) / args.variant
        checkpoint = write_checkpoint(args.variant, Path(scratch) / f"{args.variant}.pth")
        fuse_to_deployment(checkpoint, directory, FuseOptions(activation="silu"))
        export_to_deployment(directory)
        plan = build_to_deployment(directory, BuildOptions(placement="one")).report["plan"]
        deployment = Deployment.open(directory)
        reference, model = read_reference(deployment), training_form(deployment)
        if model is None:
            raise SystemExit("the checkpoint was removed while this ran")
        environment = describe_machine()
        with Runtime.open(directory, plan=plan) as runtime:
            arms = [
                Arm(name="runtime", run=runtime, load_ms=None, note=""),
                bare_session(deployment, plan, usable_cores()),
                torch_arm(model),
                unfused_arm(model, reference.image),
            ]
            latencies, errors = time_arms(arms, reference, args.rounds)
    write_results(
        f"cpu-{args.variant}",
        latencies,
        ours="runtime",
        errors=errors,
        conditions={"input": "1x3x224x224", "threads": usable_cores(), "rounds": args.rounds},
        environment=environment,
    )


if __name__ == "__main__":
    main()
