"""What there is for GPUs on this machine, what stands in the way, and the fix for each."""

from __future__ import annotations

from collections.abc import Iterator

from ..machine.gpus import GpuReport
from .finding import Finding
from .packages import TENSORRT
from .versions import installed

_GROUP = "gpu"
_INSTALL = "pip install 'parnet-deploy[gpu]'"


def examine_gpus(report: GpuReport) -> Iterator[Finding]:
    """Devices, driver, peer access, packages, and packages that do not go together."""
    if not report.gpus:
        yield Finding(
            group="hardware",
            name="gpu",
            status="absent",
            detail=report.why,
            fix="none needed: the CPU backend works. With a GPU: install NVIDIA's driver, and in a "
            "container start it with --gpus all",
        )
        return
    for gpu in report.gpus:
        yield Finding(
            group=_GROUP,
            name=f"gpu {gpu.ordinal}",
            status="ok",
            detail=f"{gpu.name}, compute capability {gpu.compute_capability}, "
            f"{gpu.memory_mib / 1024:.1f} GiB, {gpu.uuid}",
        )
    yield _driver(report)
    if len(report.gpus) > 1:
        yield _peers(report)
    yield _tensorrt()
    yield _bindings(report)
    yield _onnxruntime()


def _driver(report: GpuReport) -> Finding:
    release = report.release or "of unknown version"
    cuda = "unknown" if report.cuda is None else f"{report.cuda[0]}.{report.cuda[1]}"
    detail = f"{release}, runs programs made for CUDA {cuda} and older"
    return Finding(group=_GROUP, name="driver", status="ok", detail=detail)


def _peers(report: GpuReport) -> Finding:
    """Whether copies between GPUs go directly."""
    ordinals = [gpu.ordinal for gpu in report.gpus]
    pairs = [(i, k) for i in ordinals for k in ordinals if i != k]
    missing = [f"{i}->{k}" for i, k in pairs if (i, k) not in report.peers]
    if not missing:
        detail = f"all {len(pairs)} directions"
        return Finding(group=_GROUP, name="peer access", status="ok", detail=detail)
    return Finding(
        group=_GROUP,
        name="peer access",
        status="warning",
        detail=f"none for {', '.join(missing)}",
        fix="copies between these GPUs take a detour over the host. Put the streams on GPUs of one "
        "NVLink or PCIe switch (nvidia-smi topo -m), or on one GPU; in a virtual machine ask for "
        "peer access",
    )


def _tensorrt() -> Finding:
    name = next((name for name in TENSORRT if installed(name)), None)
    if name is not None:
        detail = f"{installed(name)} ({name})"
        return Finding(group=_GROUP, name="tensorrt", status="ok", detail=detail)
    return Finding(
        group=_GROUP,
        name="tensorrt",
        status="missing",
        detail="not installed; needed by the backend tensorrt",
        fix=_INSTALL,
    )


def _bindings(report: GpuReport) -> Finding:
    """The bindings' major version must not be newer than what the driver runs."""
    version = installed("cuda-bindings")
    if version is None:
        return Finding(
            group=_GROUP,
            name="cuda-bindings",
            status="missing",
            detail="not installed; needed by every GPU backend",
            fix=_INSTALL,
        )
    major = version.partition(".")[0]
    if report.cuda is not None and major.isdigit() and int(major) > report.cuda[0]:
        return Finding(
            group=_GROUP,
            name="cuda-bindings",
            status="warning",
            detail=f"{version} is made for CUDA {major}, the driver runs CUDA {report.cuda[0]}",
            fix=f"update NVIDIA's driver, or: pip install 'cuda-bindings<{report.cuda[0] + 1}'",
        )
    return Finding(group=_GROUP, name="cuda-bindings", status="ok", detail=version)


def _onnxruntime() -> Finding:
    version = installed("onnxruntime-gpu")
    if version is None:
        return Finding(
            group=_GROUP,
            name="onnxruntime-gpu",
            status="missing",
            detail="not installed; needed by the backend onnxruntime-cuda",
            fix="pip uninstall -y onnxruntime && pip install onnxruntime-gpu",
        )
    return Finding(group=_GROUP, name="onnxruntime-gpu", status="ok", detail=version)
