"""Every way to run a ParNet on a GPU, side by side in one run.

    python benchmarks/gpu.py [--models parnet-s,parnet-m,parnet-l,parnet-xl] [--budget-s 1500]
    python benchmarks/gpu.py --device cpu --models parnet-s --rounds 3      # a rehearsal

Batch 1, random weights with random BatchNorm statistics. Needs torch, numpy and this repository on
PYTHONPATH; an arm that needs more, or fails, keeps its row with the reason. Of each arm: the output
is checked against float32 on the CPU before anything is timed; then device time (events around the
work, outside of graphs), host time of enqueueing, device to device and host to host, alternated,
raw samples kept. Warm-up stands apart.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gpu_arms import TOLERANCE, GpuArm, Maker, Network, Unavailable, torch_arms
from gpu_clock import Clock, device_facts, floors_us, measure_rates, open_clock
from gpu_networks import FusedParNet
from gpu_ours import our_arms
from gpu_series import Series, measure
from gpu_table import print_table
from networks import random_parnet
from report import RESULTS, save

from parnet_deploy.compare import compare
from parnet_deploy.errors import ParnetDeployError
from parnet_deploy.export.fuse import fuse_network
from parnet_deploy.machine.describe import describe_machine
from parnet_deploy.measure import compare_latency
from parnet_deploy.spec import RELEASED

MODELS = tuple(RELEASED)
BASE = ("training form, eager", "fp32")
"""What ratios are of: the authors' form as they ran it."""

FUSED_TOLERANCE = 1e-5
_MAKING = 0.6  # of a model's time: then no further arm is made, and what is there is timed


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How long to measure: rounds of each model, and a share of the time there is."""

    rounds: int
    model_s: float


def main() -> None:
    """Measure and write ``<output>/gpu-<model>-<device>.json``."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--arms", default="", help="only arms whose name contains one of these")
    parser.add_argument("--rounds", type=int, default=1000)
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--budget-s", type=float, default=1500.0)
    parser.add_argument("--output", type=Path, default=RESULTS)
    args = parser.parse_args()
    models = args.models.split(",")
    unknown = sorted(set(models) - set(MODELS))
    if unknown:
        parser.error(f"--models: got {', '.join(unknown)}, expected some of {', '.join(MODELS)}")
    clock = open_clock(args.device)
    rates = measure_rates(clock)
    limits = Limits(rounds=args.rounds, model_s=args.budget_s / len(models))
    wanted = [word for word in args.arms.split(",") if word]
    for model in models:
        run_model(model, clock, rates, limits, wanted, side=args.side, output=args.output)


def run_model(
    name: str,
    clock: Clock,
    rates: Mapping[str, float],
    limits: Limits,
    wanted: Sequence[str],
    *,
    side: int,
    output: Path,
) -> Path:
    """All arms of one model; returns the file."""
    started, environment, before = time.monotonic(), describe_machine(), device_facts(clock)
    devices = torch.cuda.device_count() if clock.name == "cuda" else 1
    makers = {
        key: make
        for key, make in {**torch_arms(), **our_arms(clock.name, devices)}.items()
        if not wanted or any(word in key[0] for word in wanted)
    }
    with tempfile.TemporaryDirectory() as scratch:
        network, reference, proof = prepare(name, clock, side, Path(scratch), devices)
        floors = floors_us(
            network.model.spec, side, FusedParNet(network.fused, side).weights, dict(rates)
        )
        deadline = started + limits.model_s * _MAKING
        arms, rows = make_arms(makers, network, reference, deadline)
        series = measure(
            {key: arm for key, (arm, _) in arms.items()},
            network.image,
            clock,
            rounds=limits.rounds,
            deadline=started + limits.model_s,
        )
        for arm, _ in arms.values():
            arm.close()
    for key, (arm, error) in arms.items():
        rows[key] = row(key, arm, error, series[key], floors)
    done = [rows[key] for key in makers]
    conditions = {
        "input": f"1x3x{side}x{side}",
        "device": clock.label,
        "rounds": min((len(s.host.samples_ms) for s in series.values()), default=0),
        "tf32": "off",
        "host to host": "from an array on the host to one on the host, copies included",
    }
    path = save(
        f"gpu-{name}-{clock.label}",
        arms=done,
        ratios=ratios(series),
        conditions=conditions,
        environment=environment,
        folder=output,
        device={"before": before, "after": device_facts(clock)},
        rates=dict(rates),
        floors=floors,
        reference=proof,
    )
    print_table(name, conditions, done, floors, rates, path)
    return path


def prepare(
    name: str, clock: Clock, side: int, folder: Path, devices: int
) -> tuple[Network, np.ndarray, dict[str, float]]:
    """The network, its float32 logits on the CPU, and how good those are."""
    model = random_parnet(name)
    image = np.random.default_rng(0).standard_normal((1, 3, side, side), dtype=np.float32)
    with torch.inference_mode():
        logits = model(torch.from_numpy(image)).numpy()
        exact = random_parnet(name).double()(torch.from_numpy(image).double()).numpy()
        fused = fuse_network(model.state_dict(), model.spec)
        ours = FusedParNet(fused, side)(torch.from_numpy(image)).numpy()
    close = compare(ours, logits, tolerance=FUSED_TOLERANCE, what="fused form on the CPU").require()
    reference = compare(logits, exact, tolerance=FUSED_TOLERANCE, what="float32 reference")
    network = Network(
        name=name,
        model=model,
        fused=fused,
        side=side,
        image=image,
        clock=clock,
        folder=folder,
        devices=devices,
    )
    proof = {"fused_error": close.error, "float32_error_of_float64": reference.require().error}
    return network, logits, proof


def make_arms(
    makers: Mapping[tuple[str, str], Maker],
    network: Network,
    reference: np.ndarray,
    deadline: float,
) -> tuple[dict[tuple[str, str], tuple[GpuArm, float]], dict[tuple[str, str], dict[str, Any]]]:
    """Make and check every arm. What cannot be made, or is wrong, gets its row at once."""
    arms: dict[tuple[str, str], tuple[GpuArm, float]] = {}
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for key, make in makers.items():
        name, precision = key
        about = {"name": name, "precision": precision}
        if time.monotonic() > deadline:
            rows[key] = {**about, "failed": "not made: the time budget was used up"}
            continue
        started = time.monotonic()
        arm = None
        try:
            arm = make(network)
            error = check(arm, network.image, reference, precision)
        except (Unavailable, ParnetDeployError) as reason:
            rows[key] = {**about, "failed": str(reason)}
        except Exception as reason:  # a rival's library may raise anything: its row says what
            said = str(reason).strip().partition("\n")[0]
            rows[key] = {**about, "failed": f"{type(reason).__name__}: {said}"[:400]}
        else:
            arms[key] = (arm, error)
            print(
                f"{network.name}: {name}, {precision}: {time.monotonic() - started:.1f} s to make"
            )
            continue
        print(f"{network.name}: {name}, {precision}: {rows[key]['failed']}")
        if arm is not None:
            arm.close()
    return arms, rows


def check(arm: GpuArm, image: np.ndarray, reference: np.ndarray, precision: str) -> float:
    """Both ways through an arm are right; returns the larger error, of the largest logit.

    Raises:
        CheckFailedError: One is not.
    """
    errors = []
    arm.enqueue()
    for what, got in (("device to device", arm.read()), ("host to host", arm.answer(image))):
        parity = compare(got, reference, tolerance=TOLERANCE[precision], what=what)
        errors.append(parity.require().error)
    return max(errors)


def row(
    key: tuple[str, str], arm: GpuArm, error: float, series: Series, floors: Mapping[str, Any]
) -> dict[str, Any]:
    """One arm in the JSON: host to host as every benchmark's, and the other series beside it."""
    floor_ms = floors[key[1]]["floor_us"] / 1e3
    return {
        **series.host.to_json(),
        "name": key[0],
        "precision": key[1],
        "note": arm.note,
        "error_of_largest_logit": error,
        "device_over_floor": series.device.median_ms / floor_ms,
        "series": {
            "device": series.device.to_json(),
            "enqueue": series.enqueue.to_json(),
            "device_to_device": series.through.to_json(),
        },
    }


def ratios(series: Mapping[tuple[str, str], Series]) -> list[dict[str, Any]]:
    """Each arm in units of ``BASE``, host to host, paired by rounds."""
    if BASE not in series:
        return []
    base = series[BASE].host
    return [
        {"arm": key[0], "precision": key[1], "base": BASE[0], **found.to_json()}
        for key, arm in series.items()
        for found in [compare_latency(arm.host, base)]
    ]


if __name__ == "__main__":
    main()
