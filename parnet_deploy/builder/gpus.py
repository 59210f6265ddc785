"""Which backend a build uses: what the machine has, what is missing, and how to get it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from ..errors import DeviceUnavailableError
from ..runtime.backend import BACKENDS, backend_rank
from ..runtime.machine import probe_gpus
from .options import BuildOptions

GPU_BACKENDS = ("tensorrt", "onnxruntime-cuda")
"""Those that run on GPUs, the best first."""

_INSTALL = "Run: pip install 'parnet-deploy[gpu]'."


def choose_backend(options: BuildOptions) -> BuildOptions:
    """Fill in the backend, and refuse what nothing here can do.

    Without a name it is the best for GPUs if GPUs were asked for or one can be used, else the CPU's.

    Raises:
        DeviceUnavailableError: With what is missing, and the way that works on this machine.
        BackendError: There is no backend of this name.
        SpecError: An option that the backend would not heed.
    """
    chosen = options if options.backend else replace(options, backend=_best(options))
    assert chosen.backend is not None
    backend_rank(chosen.backend)
    if chosen.backend in GPU_BACKENDS:
        missing = what_is_missing(chosen.backend)
        if missing:
            raise _unavailable(options, missing)
        check_ordinals(chosen.devices, probe_gpus()[0])
    elif chosen.backend == "onnxruntime" and options.gpus:
        why = probe_gpus()[1] or "the backend onnxruntime runs on the CPU"
        raise _unavailable(options, why)
    chosen.check_backend()
    return chosen


def _best(options: BuildOptions) -> str:
    """The best backend that can run here."""
    count, why = probe_gpus()
    if count:
        reasons = {name: what_is_missing(name) for name in GPU_BACKENDS}
        usable = [name for name, missing in reasons.items() if not missing]
        if usable:
            return usable[0]
        why = " ".join([f"{count} here, but", *filter(None, reasons.values())])
    if options.gpus:
        raise _unavailable(options, why)
    return "onnxruntime"


def what_is_missing(backend: str) -> str:
    """What a GPU backend lacks here, and the fix, as part of a sentence; empty if nothing."""
    count, why = probe_gpus()
    if not count:
        return why
    if backend not in BACKENDS:
        return f"this version has no backend {backend};"
    if not _installed("cuda.bindings"):
        return f"{backend} needs the package cuda-bindings, which is not installed. {_INSTALL}"
    if backend == "tensorrt":
        if not (_installed("tensorrt") or _installed("tensorrt_bindings")):
            return f"tensorrt needs the package tensorrt, which is not installed. {_INSTALL}"
        return ""
    if not _installed("onnxruntime"):
        return (
            f"{backend} needs the package onnxruntime-gpu, which is not installed. {_INSTALL}"
        )
    providers = import_module("onnxruntime").get_available_providers()
    if "CUDAExecutionProvider" not in providers:
        return (
            f"{backend} needs the CUDA provider of onnxruntime-gpu, and the package onnxruntime "
            "that is installed has none. Run: pip uninstall onnxruntime && "
            "pip install 'parnet-deploy[gpu]'."
        )
    return ""


def check_ordinals(asked: Sequence[int], count: int) -> None:
    """Refuse GPUs that the machine does not have.

    Raises:
        DeviceUnavailableError: With those that it has.
    """
    absent = sorted({ordinal for ordinal in asked if ordinal >= count})
    if absent:
        have = "0" if count == 1 else f"0 to {count - 1}"
        raise DeviceUnavailableError(
            f"--gpus {_text(asked)}: got {_text(absent)}, expected {have}: this machine has "
            f"{count}. A GPU may be named several times: --gpus 0,0,0."
        )


def check_one_architecture(devices: Mapping[int, Mapping[str, Any]]) -> None:
    """Refuse GPUs of different compute capability for TensorRT: one process cannot use both.

    TensorRT compiles parts of an engine for the first GPU of the process and then fails, or worse,
    on the other.

    Args:
        devices: Facts of each GPU by its ordinal; ``name`` and ``compute_capability`` count.

    Raises:
        DeviceUnavailableError: With which GPUs go together.

    Source: github.com/NVIDIA/TensorRT issue 4526 (Myelin: "Compiled assuming that device 0 was").
    """
    kinds: dict[str, list[int]] = {}
    for ordinal, about in sorted(devices.items()):
        kinds.setdefault(about["compute_capability"], []).append(ordinal)
    if len(kinds) < 2:
        return
    got = ", ".join(
        f"GPU {ordinal} {about['name']} ({about['compute_capability']})"
        for ordinal, about in sorted(devices.items())
    )
    ways = " or ".join(f"--gpus {_text(ordinals)}" for ordinals in kinds.values())
    raise DeviceUnavailableError(
        f"--gpus {_text(sorted(devices))}: got {got}, expected one compute capability: TensorRT "
        f"cannot use two in one process. Run: parnet-deploy build {ways}; or with --backend "
        "onnxruntime-cuda."
    )


def read_devices(ordinals: Sequence[int]) -> dict[int, Mapping[str, Any]]:
    """Facts of GPUs, from the driver.

    Raises:
        DeviceUnavailableError: There is no such GPU.
    """
    describe: Callable[[int], Mapping[str, Any]] = import_module(
        f"{__package__}.trt_device"
    ).describe_device
    return {ordinal: describe(ordinal) for ordinal in sorted(set(ordinals))}


def _unavailable(options: BuildOptions, why: str) -> DeviceUnavailableError:
    asked = _text(options.gpus)
    what = f"--gpus {asked}" if options.gpus else f"backend {options.backend}"
    why = why.rstrip(".;")
    gpus = f"--gpus {asked or '0'} --backend fake"
    return DeviceUnavailableError(
        f"{what}: {why}. On the CPU run: parnet-deploy build; to simulate the GPUs: "
        f"parnet-deploy build {gpus}."
    )


def _installed(package: str) -> bool:
    """Whether a package can be imported; a parent that is missing counts as well."""
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:
        return False


def _text(ordinals: Sequence[int]) -> str:
    return ",".join(map(str, ordinals))
