"""Which backend a build uses: what the machine has, what is missing, and how to get it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec

from ..errors import BackendError, DeviceUnavailableError
from ..machine.gpus import probe_gpus, read_gpus
from ..plan import MIXED
from ..runtime.backend import backend_rank, is_installed
from ..runtime.tensorrt.plan_fit import check_same_kind
from .options import AUTO_BACKEND, CPU_BACKENDS, BuildOptions

GPU_BACKENDS = ("tensorrt", "onnxruntime-cuda")
"""Those that run on GPUs, the best first."""

_INSTALL = "Run: pip install 'parnet-deploy[gpu]'."


def choose_backend(options: BuildOptions) -> BuildOptions:
    """Fill in the backend, and refuse what nothing here can do.

    Without a name it is the best for GPUs where one can be used, else the CPU's.

    Raises:
        DeviceUnavailableError: With what is missing, and the way that works on this machine.
        BackendError: There is no backend of this name.
        SpecError: An option that the backend would not heed.
    """
    chosen = options if options.backend else replace(options, backend=_best(options))
    assert chosen.backend is not None
    if chosen.backend != AUTO_BACKEND:
        backend_rank(chosen.backend)
    if chosen.backend == MIXED:
        raise BackendError(
            f"backend: got {MIXED}, expected one that is built. Use --backend {AUTO_BACKEND}: it "
            "mixes backends where that is faster."
        )
    if chosen.backend in GPU_BACKENDS:
        missing = what_is_missing(chosen.backend)
        if missing:
            raise _unavailable(options, missing)
        check_ordinals(chosen.devices, probe_gpus()[0])
        if chosen.backend == "tensorrt":
            facts = {gpu.ordinal: gpu.to_json() for gpu in read_gpus().gpus}
            check_same_kind({ordinal: facts[ordinal] for ordinal in chosen.devices})
    elif chosen.backend in (AUTO_BACKEND, *CPU_BACKENDS) and options.gpus:
        why = probe_gpus()[1] or f"the backend {chosen.backend} runs on the CPU"
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
    """What a GPU backend lacks here, and the fix; empty if nothing."""
    count, why = probe_gpus()
    if not count:
        return why
    if not _installed("cuda.bindings"):
        return f"{backend} needs the package cuda-bindings, which is not installed. {_INSTALL}"
    if backend == "tensorrt":
        if not (_installed("tensorrt") or _installed("tensorrt_bindings")):
            return f"tensorrt needs the package tensorrt, which is not installed. {_INSTALL}"
        return ""
    if not _installed("onnxruntime"):
        return f"{backend} needs the package onnxruntime-gpu, which is not installed. {_INSTALL}"
    try:
        import_module("parnet_deploy.runtime.onnxruntime.cuda").check_provider()
    except BackendError as error:
        return f"{backend} cannot be used: {error}"
    return ""


def installed_backends() -> tuple[str, ...]:
    """The backends of the CPU whose package is here, the one that always works first."""
    return tuple(filter(is_installed, CPU_BACKENDS))


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
