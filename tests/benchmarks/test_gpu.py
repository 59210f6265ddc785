"""The GPU benchmark, rehearsed on the CPU: what it checks, what it keeps, what it never invents."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
import types

import numpy as np
import pytest
import torch

from parnet_deploy.export.fuse import fuse_network
from parnet_deploy.spec import RELEASED, ModelSpec
from tests.networks import random_image, random_network

SPECS = [
    ModelSpec(planes=(4, 8, 6), num_blocks=(2, 3, 1), num_classes=5),
    ModelSpec(planes=(4, 6, 10, 8), num_blocks=(2, 2, 2, 1), num_classes=5, activation="relu"),
    ModelSpec(planes=(2, 4, 8, 4, 6), num_blocks=(2, 2, 3, 2, 1), num_classes=3),
]


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: f"{spec.streams} streams")
def test_the_fused_module_is_the_trained_network(spec):
    from gpu_networks import FusedParNet

    model = random_network(spec).double()
    side = 2 * spec.size_multiple
    image = random_image(spec, 2, side, side).double()
    fused = fuse_network(model.state_dict(), spec, torch.float64)
    with torch.inference_mode():
        want, got = model(image), FusedParNet(fused, side)(image)
    assert float((got - want).abs().max() / want.abs().max()) < 1e-12


def test_floors():
    """ParNet-S by hand: 4731 M multiply-accumulates, 20 M weights, 100 TFLOP/s, 1000 GB/s."""
    from gpu_clock import floors_us

    rates = {"matmul_fp32_tflops": 50.0, "matmul_fp16_tflops": 100.0, "copy_gb_per_s": 1000.0}
    floors = floors_us(RELEASED["parnet-s"], 224, 20_000_000, rates)
    assert floors["gmac"] == pytest.approx(4.731, abs=0.001)
    assert floors["fp16"]["arithmetic_us"] == pytest.approx(94.62, abs=0.02)
    assert floors["fp16"]["memory_us"] == pytest.approx(40.0)
    assert floors["fp32"]["memory_us"] == pytest.approx(80.0)
    assert floors["fp32"]["floor_us"] == floors["fp32"]["arithmetic_us"]


class Arm:
    """Counts what is asked of it; its answer is as wrong as told."""

    def __init__(self, answer, log, name) -> None:
        self.answer_, self.log, self.name, self.closed = answer, log, name, False

    def as_arm(self):
        from gpu_arms import GpuArm

        def close() -> None:
            self.closed = True

        return GpuArm(
            enqueue=lambda: self.log.append(self.name),
            read=lambda: self.answer_,
            answer=lambda image: self.answer_,
            note="",
            close=close,
        )


def test_what_is_wrong_or_fails_keeps_a_row_and_is_not_timed():
    import gpu
    from gpu_arms import Unavailable

    reference = np.ones((1, 3), np.float32)
    right, wrong = Arm(reference, [], "right"), Arm(reference + 1e-3, [], "wrong")

    def broken(network):
        raise RuntimeError("Triton is missing\nsecond line")

    def absent(network):
        raise Unavailable("it needs a GPU")

    makers = {
        ("right", "fp32"): lambda network: right.as_arm(),
        ("wrong", "fp32"): lambda network: wrong.as_arm(),
        ("wrong", "fp16"): lambda network: wrong.as_arm(),
        ("nan", "fp32"): lambda network: Arm(reference * math.nan, [], "nan").as_arm(),
        ("broken", "fp32"): broken,
        ("absent", "fp32"): absent,
    }
    network = types.SimpleNamespace(name="toy", image=np.zeros((1, 3, 4, 4), np.float32))
    arms, rows = gpu.make_arms(makers, network, reference, time.monotonic() + 1e6)
    assert set(arms) == {("right", "fp32"), ("wrong", "fp16")}, "half precision may be 1e-3 off"
    assert "error 1.00e-03" in rows["wrong", "fp32"]["failed"]
    assert "NaN or Inf" in rows["nan", "fp32"]["failed"]
    assert rows["broken", "fp32"]["failed"] == "RuntimeError: Triton is missing"
    assert rows["absent", "fp32"] == {
        "name": "absent",
        "precision": "fp32",
        "failed": "it needs a GPU",
    }
    assert wrong.closed
    assert not right.closed


def test_when_the_time_is_used_up():
    import gpu

    makers = {("late", "fp32"): lambda network: pytest.fail("it must not be made")}
    network = types.SimpleNamespace(name="toy", image=None)
    arms, rows = gpu.make_arms(makers, network, np.ones((1, 1)), time.monotonic() - 1)
    assert arms == {}
    assert rows["late", "fp32"]["failed"] == "not made: the time budget was used up"


def test_arms_alternate_and_samples_pair_up():
    from gpu_clock import CpuClock
    from gpu_series import measure

    log: list[str] = []
    arms = {name: Arm(None, log, name).as_arm() for name in "ab"}
    found = measure(arms, np.zeros(1), CpuClock(), rounds=4, deadline=time.monotonic() + 1e6)
    calls = "".join(log)[-4 * 6 :]  # three of the four kinds enqueue
    assert calls == "aaabbb" + "bbbaaa" + "aaabbb" + "bbbaaa"
    for series in found.values():
        lengths = {
            len(latency.samples_ms)
            for latency in (series.device, series.enqueue, series.through, series.host)
        }
        assert lengths == {4}
    few = measure(arms, np.zeros(1), CpuClock(), rounds=50, deadline=time.monotonic() - 1)
    assert len(few["a"].host.samples_ms) == 3, "the deadline ends it after the least"


def test_every_arm_of_a_gpu_is_in_the_list():
    from gpu_arms import torch_arms
    from gpu_ours import our_arms

    names = {key[0] for key in {**torch_arms(), **our_arms("cuda", 3)}}
    assert {"training form, eager", "fused, CUDA graph", "onnxruntime-cuda, bare session"} <= names
    assert {"tensorrt, one", "tensorrt, one, auxiliary streams"} <= names
    assert {f"tensorrt, streams, {n}" for n in ("1 GPU", "2 GPUs", "3 GPUs")} <= names
    assert len(names) < len({**torch_arms(), **our_arms("cuda", 3)}), "some in two precisions"


@pytest.mark.parametrize("known", ["clocks_event_reasons", "clocks_throttle_reasons", "none"])
def test_facts_of_the_gpu(monkeypatch, known):
    """The reasons for a lowered clock have two names; an old driver may know neither."""
    import gpu_clock

    def run(command, **options):
        columns = command[1].removeprefix("--query-gpu=").split(",")
        strange = [c for c in columns if "reasons" in c and not c.startswith(known)]
        if strange:
            return types.SimpleNamespace(returncode=2, stdout=f"no field {strange}", stderr="")
        row = ", ".join(f"<{column}>" for column in columns)
        return types.SimpleNamespace(returncode=0, stdout=row + "\n", stderr="")

    monkeypatch.setattr(gpu_clock.subprocess, "run", run)
    monkeypatch.setattr(gpu_clock.shutil, "which", lambda name: "/bin/" + name)
    monkeypatch.setattr(gpu_clock.torch.cuda, "device_count", lambda: 1)
    clock = types.SimpleNamespace(name="cuda", label="toy")
    (found,) = gpu_clock.device_facts(clock)["nvidia_smi"]
    assert found["power.draw"] == "<power.draw>"
    assert found["temperature.gpu"] == "<temperature.gpu>"
    assert (f"{known}.active" in found) == (known != "none")


@pytest.mark.slow
def test_a_rehearsal(benchmarks, tmp_path):
    """The whole program: every row is there, with samples or a reason."""
    command = [sys.executable, str(benchmarks / "gpu.py"), "--device", "cpu", "--side", "32"]
    command += ["--models", "parnet-s", "--rounds", "4", "--output", str(tmp_path)]
    command += ["--arms", "eager,CUDA graph,onnxruntime"]
    environment = {**os.environ, "PYTHONPATH": str(benchmarks.parent)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = tmp_path.iterdir()
    assert path.name == "gpu-parnet-s-cpu.json"
    found = json.loads(path.read_text())
    assert (found["benchmark"], found["schema"]) == ("gpu-parnet-s-cpu", 1)
    assert found["conditions"]["device"] == "cpu"
    assert found["reference"]["float32_error_of_float64"] < 1e-5
    rows = {(row["name"], row["precision"]): row for row in found["arms"]}
    for name in (
        "training form, eager",
        "fused, eager",
        "onnxruntime, one",
        "onnxruntime, streams",
    ):
        row = rows[name, "fp32"]
        assert "failed" not in row, row
        assert len(row["samples_ms"]) == 4
        assert row["error_of_largest_logit"] <= 1e-4
        assert len(row["series"]["device"]["samples_ms"]) == 4
        assert row["device_over_floor"] > 0
    for row in found["arms"]:
        if "CUDA graph" in row["name"]:
            assert row["failed"] == "CUDA graphs need a GPU"
    ratios = {(r["arm"], r["precision"]): r for r in found["ratios"]}
    assert ratios["training form, eager", "fp32"]["median"] == 1
    assert {"arm", "base", "median", "low", "high"} <= set(ratios["onnxruntime, one", "fp32"])
    assert "fused, CUDA graph, fp32: CUDA graphs need a GPU" in done.stdout
