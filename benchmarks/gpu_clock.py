"""What time is, on a device: a CUDA GPU by events, the CPU by its clock; and how fast it can be."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable
from typing import Any

import torch

from parnet_deploy.spec import ModelSpec

_SMI = (
    "name,uuid,driver_version,pstate,clocks.sm,clocks.mem,clocks.max.sm,power.draw,power.limit,"
    "temperature.gpu"
)
_REASONS = ("clocks_event_reasons.active", "clocks_throttle_reasons.active", "")
"""Why the clock is lowered: two names, by the driver's age, or none."""

_REPEATS = 20


class CpuClock:
    """The host: work is done when its call returns. For rehearsing this benchmark."""

    name = "cpu"
    matmul_size = 1024
    copy_mib = 256

    def __init__(self) -> None:
        self.device = torch.device("cpu")

    @property
    def label(self) -> str:
        """Short, for file names."""
        return "cpu"

    def synchronize(self) -> None:
        """Nothing is ever pending."""

    def device_ms(self, work: Callable[[], object]) -> float:
        """How long the device works on it."""
        start = time.perf_counter_ns()
        work()
        return (time.perf_counter_ns() - start) / 1e6


class CudaClock:
    """A GPU, and the stream of torch's that everything is enqueued in (never the default one)."""

    name = "cuda"
    matmul_size = 8192
    copy_mib = 1024

    def __init__(self, ordinal: int = 0) -> None:
        torch.cuda.set_device(ordinal)
        self.device = torch.device("cuda", ordinal)
        self.stream = torch.cuda.Stream()
        torch.cuda.set_stream(self.stream)
        self._events = [torch.cuda.Event(enable_timing=True) for _ in range(2)]

    @property
    def label(self) -> str:
        """Short, for file names."""
        name = torch.cuda.get_device_name(self.device).lower().removeprefix("nvidia ")
        return "".join(c if c.isalnum() else "-" for c in name).strip("-")

    def synchronize(self) -> None:
        """Wait for everything on the device."""
        torch.cuda.synchronize()

    def device_ms(self, work: Callable[[], object]) -> float:
        """Time between two events around it in the stream, outside of any graph."""
        first, last = self._events
        first.record(self.stream)
        work()
        last.record(self.stream)
        last.synchronize()
        return first.elapsed_time(last)


Clock = CpuClock | CudaClock


def open_clock(device: str) -> Clock:
    """The clock of a device. TF32 is off from here on: float32 means float32."""
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = True
    if device == "cpu":
        return CpuClock()
    if not torch.cuda.is_available():
        raise SystemExit("gpu: torch sees no CUDA device. To rehearse: --device cpu")
    return CudaClock()


def measure_rates(clock: Clock) -> dict[str, float]:
    """Rates of large matrix products and copies on this device in this run.

    A product of n x n matrices is 2 n^3 operations; a copy reads and writes its bytes.
    """
    n, rates = clock.matmul_size, {}
    for name, dtype in (("fp32", torch.float32), ("fp16", torch.float16)):
        a, b = (torch.randn(n, n, device=clock.device).to(dtype) for _ in range(2))
        out = torch.empty_like(a)
        fastest_ms = _fastest(clock, lambda a=a, b=b, out=out: torch.mm(a, b, out=out))
        rates[f"matmul_{name}_tflops"] = 2 * n**3 / fastest_ms / 1e9
    source = torch.zeros(clock.copy_mib << 18, device=clock.device)
    target = torch.empty_like(source)
    fastest_ms = _fastest(clock, lambda: target.copy_(source))
    rates["copy_gb_per_s"] = 2 * source.numel() * 4 / fastest_ms / 1e6
    return rates


def floors_us(spec: ModelSpec, side: int, weights: int, rates: dict[str, float]) -> dict[str, Any]:
    """No single image can be faster on one device: arithmetic, and reading the weights once.

    Args:
        spec: The network.
        side: Height and width of the image.
        weights: Parameters of the fused network.
        rates: What ``measure_rates`` found.
    """
    macs = sum(spec.macs(side, side).values())
    floors: dict[str, Any] = {"gmac": macs / 1e9, "weights": weights}
    for name, width in (("fp32", 4), ("fp16", 2)):
        arithmetic = 2 * macs / rates[f"matmul_{name}_tflops"] / 1e6
        memory = weights * width / rates["copy_gb_per_s"] / 1e3
        floors[name] = {"arithmetic_us": arithmetic, "memory_us": memory}
        floors[name]["floor_us"] = max(arithmetic, memory)
    return floors


def device_facts(clock: Clock) -> dict[str, Any]:
    """Name, clocks, power, temperature and throttle reasons of the GPU now; library versions."""
    facts: dict[str, Any] = {"device": clock.label, "torch": torch.__version__}
    if clock.name == "cpu":
        return {**facts, "threads": torch.get_num_threads()}
    facts["cuda"], facts["cudnn"] = torch.version.cuda, torch.backends.cudnn.version()
    facts["gpus"] = torch.cuda.device_count()
    if shutil.which("nvidia-smi") is None:
        return {**facts, "nvidia_smi": "not there"}
    for last in _REASONS:
        columns = f"{_SMI},{last}".rstrip(",")
        command = ["nvidia-smi", f"--query-gpu={columns}", "--format=csv,noheader"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            rows = [line.split(", ") for line in done.stdout.strip().splitlines()]
            facts["nvidia_smi"] = [dict(zip(columns.split(","), row, strict=False)) for row in rows]
            return facts
    return {**facts, "nvidia_smi": f"failed: {done.stdout.strip() or done.stderr.strip()}"}


def _fastest(clock: Clock, work: Callable[[], object]) -> float:
    for _ in range(3):
        work()
    clock.synchronize()
    return min(clock.device_ms(work) for _ in range(_REPEATS))
