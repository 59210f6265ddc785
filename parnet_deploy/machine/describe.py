"""What machine this is: the facts that a plan, a benchmark or a bug report must carry."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

from .cores import usable_cores
from .gpus import read_gpus

_ISA = ("avx", "avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "asimd")
_PACKAGES = (
    "numpy",
    "onnxruntime",
    "onnxruntime-gpu",
    "onnx",
    "openvino",
    "MNN",
    "ncnn",
    "torch",
    "tensorrt",
    "tensorrt-cu12",
    "tensorrt-cu13",
    "tensorrt-bindings",
    "tensorrt-cu12-bindings",
    "tensorrt-cu13-bindings",
    "cuda-bindings",
)


def describe_machine() -> dict[str, Any]:
    """CPU, instruction sets, cores, load, governor, GPUs, operating system and package versions."""
    model, flags = _cpu()
    found = read_gpus()
    return {
        "cpu": model,
        "isa": [name for name in _ISA if name in flags],
        "cores_usable": usable_cores(),
        "cores_total": os.cpu_count(),
        "load_average": _load_average(),
        "governor": _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "memory_mib": _memory_mib(),
        "gpus": [gpu.to_json() for gpu in found.gpus],
        "gpu_driver": found.release,
        "gpu_driver_cuda": found.cuda_text,
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": package_versions(),
    }


def machine_key() -> dict[str, Any]:
    """The part of it that decides which engine is fastest, and stays the same between runs.

    Without GPUs ``gpus`` is 0. With GPUs it is what one of them has in common with others of its
    kind, and the driver.
    """
    about = describe_machine()
    key = {name: about[name] for name in ("cpu", "isa", "cores_usable")}
    kind = ("name", "compute_capability", "memory_mib", "multiprocessors")
    gpus = [{name: gpu[name] for name in kind} for gpu in about["gpus"]]
    if not gpus:
        return {**key, "gpus": 0}
    return {**key, "gpus": gpus, "gpu_driver": about["gpu_driver"] or about["gpu_driver_cuda"]}


def package_versions() -> dict[str, str]:
    """Versions of the packages that shape results; those not installed are left out."""
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _cpu() -> tuple[str, set[str]]:
    model, flags = platform.processor() or platform.machine(), set[str]()
    for line in (_read("/proc/cpuinfo") or "").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            model = value.strip()
        if key.strip() in ("flags", "Features"):
            flags = set(value.split())
    return model, flags


def _load_average() -> list[float] | None:
    try:
        return [round(load, 2) for load in os.getloadavg()]
    except OSError:
        return None


def _memory_mib() -> int | None:
    for line in (_read("/proc/meminfo") or "").splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) // 1024
    return None


def _read(path: str) -> str | None:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return None
