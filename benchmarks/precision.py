"""INT8 engines beside the float32 ones, on the CPU: time, file size, and noise of the logits.

    python benchmarks/precision.py [--variant parnet-s] [--rounds 60] [--vnni | --no-vnni]

One process, alternated, spinning off, every usable core, one engine each. The weights are random
and so are the images: time and size mean something, accuracy does not, so the gates are open here.
``--no-vnni`` uses weights of 7 bits, as processors without VNNI need them.
"""

from __future__ import annotations

import os

os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # before torch starts its threads

import argparse
import hashlib
import tempfile
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np
from networks import write_checkpoint
from report import write_results

from parnet_deploy import Runtime
from parnet_deploy.builder.build import BuildOptions, build_to_deployment
from parnet_deploy.compare import ENGINE_TOLERANCE, compare
from parnet_deploy.deployment import Deployment
from parnet_deploy.export.export_step import export_to_deployment
from parnet_deploy.export.fuse_step import FuseOptions, fuse_to_deployment
from parnet_deploy.machine.cores import usable_cores
from parnet_deploy.machine.describe import describe_machine
from parnet_deploy.measure import alternate
from parnet_deploy.quantize.calibrate_step import calibrate
from parnet_deploy.quantize.calibration_set import LoadedSet
from parnet_deploy.quantize.gates import CLEAN, Gates
from parnet_deploy.quantize.metrics import sqnr_db
from parnet_deploy.quantize.options import QuantizeOptions
from parnet_deploy.quantize.qdq_cpu import WEIGHT_LIMIT, WEIGHT_LIMIT_PAIRS
from parnet_deploy.quantize.quantize_step import quantize_to_deployment
from parnet_deploy.steps import read_reference

IMAGES = 16
OPEN = Gates(
    max_drop_points=100,
    min_sqnr_db=0,
    min_noisy_sqnr_db=0,
    min_agreement=0,
    min_noisy_agreement=0,
    min_kernel_agreement=0,
    max_clipped=1,
)
"""Random weights answer at random; only the kernels must still do what the graph says."""


def main() -> None:
    """Measure and write ``precision-<variant>.json``."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--variant", default="parnet-s")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--vnni", action=argparse.BooleanOptionalAction, default=None)
    args = parser.parse_args()
    limits = {None: None, True: WEIGHT_LIMIT, False: WEIGHT_LIMIT_PAIRS}
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        directory = Path(scratch) / args.variant
        checkpoint = write_checkpoint(args.variant, Path(scratch) / f"{args.variant}.pth")
        fuse_to_deployment(checkpoint, directory, FuseOptions(activation="silu"))
        export_to_deployment(directory)
        report = quantize(directory, limits[args.vnni])
        runtimes, sizes = {}, {}
        for precision in ("fp32", "int8"):
            options = BuildOptions(precision=precision, placement="one")
            plan = build_to_deployment(directory, options).report["plan"]
            file = Deployment.open(directory).verified_path(f"plans/{plan}/all.onnx")
            sizes[precision] = file.stat().st_size
            runtimes[precision] = stack.enter_context(Runtime.open(directory, plan=plan))
        errors, noise = check(Deployment.open(directory), runtimes)
        environment = describe_machine()
        image = read_reference(Deployment.open(directory)).image
        calls = {name: partial(runtime, image) for name, runtime in runtimes.items()}
        latencies = alternate(calls, rounds=args.rounds)
    write_results(
        f"precision-{args.variant}" + ("-no-vnni" if args.vnni is False else ""),
        latencies,
        ours="int8",
        errors=errors,
        conditions={
            "input": "x".join(map(str, image.shape)),
            "threads": usable_cores(),
            "rounds": args.rounds,
            "largest weight code": report["weight_limit"],
            "engine bytes": f"{sizes['int8']} of {sizes['fp32']}",
            "engine ratio": round(sizes["int8"] / sizes["fp32"], 4),
            "logit SQNR dB": round(noise, 2),
        },
        environment=environment,
    )


def quantize(directory: Path, weight_limit: int | None) -> dict:
    """Calibrate on random images and make the INT8 graphs; returns their report."""
    spec = Deployment.open(directory).spec
    side = read_reference(Deployment.open(directory)).image.shape[-1]
    random = np.random.default_rng(0)
    shape = (IMAGES, spec.in_channels, side, side)
    images = random.standard_normal(shape, dtype=np.float32)
    digest = hashlib.sha256(images.tobytes()).hexdigest()
    found = LoadedSet(name="random", images=images, classes=None, sha256=digest)
    options = QuantizeOptions(gates=OPEN, weight_limit=weight_limit, search=False)
    ranges = calibrate(directory, found, found)
    result = quantize_to_deployment(directory, {CLEAN: found}, options, calibration=ranges)
    return dict(result.report)


def check(deployment: Deployment, runtimes: dict[str, Runtime]) -> tuple[dict[str, float], float]:
    """Errors of both engines against the float32 reference, and the SQNR of INT8.

    Raises:
        CheckFailedError: The float32 engine is wrong. (The INT8 one was held against its own
            graph when it was built and opened.)
    """
    reference = read_reference(deployment)
    got = {name: runtime(reference.image) for name, runtime in runtimes.items()}
    exact = compare(got["fp32"], reference.logits, tolerance=ENGINE_TOLERANCE, what="fp32")
    low = compare(got["int8"], reference.logits, tolerance=1.0, what="int8")
    errors = {"fp32": exact.require().error, "int8": low.require().error}
    return errors, sqnr_db(got["int8"], reference.logits)


if __name__ == "__main__":
    main()
