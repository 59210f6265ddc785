"""What this machine can run, why not the rest, and how to get it."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..machine.describe import describe_machine
from ..machine.gpus import GpuReport, read_gpus
from ..runtime.backend import BACKENDS, is_installed, on_host
from .conflicts import examine_conflicts
from .deployments import examine_deployments
from .finding import Finding
from .gpu import examine_gpus
from .packages import DISPENSABLE, EXTRAS
from .probe import probe_backend
from .system import examine_devices, examine_libraries, examine_limits
from .verbs import examine_verbs, int8_text
from .versions import installed

_LEAST_FREE_MIB = 2048  # a large ParNet with three plans and their reports
_FOR = {"": "everything", "cpu": "run, bench, verify", "export": "fuse, export, build"}
_FOR |= {"images": "run, demo", "serve": "serve"}
_FOR |= {name: "build --backend auto" for name in ("openvino", "mnn", "ncnn")}


def examine(engines: Path, *, deep: bool = False) -> Iterator[Finding]:
    """Look at what runs here, and at what it needs: packages, devices, limits. Changes nothing.

    Args:
        engines: Where deployments are, or would be written; need not exist.
        deep: Open every plan of every deployment with its canary.
    """
    machine = describe_machine()
    yield Finding(
        group="system",
        name="python",
        status="ok",
        detail=f"{machine['python']}, {machine['system']}",
    )
    gpus = read_gpus()
    yield from examine_verbs(machine, len(gpus.gpus))
    for extra, packages in EXTRAS.items():
        yield from (_package(extra, name) for name in packages)
    yield from examine_conflicts()
    unusable = set[str]()
    for finding in _backends(gpus):
        unusable |= {finding.name} if finding.status != "ok" else set()
        yield finding
    yield from examine_gpus(gpus)
    yield from examine_devices()
    if gpus.gpus:
        yield from examine_libraries()
    yield _instructions(machine)
    yield _cores(machine)
    yield _memory(machine)
    yield _disk(engines)
    yield from examine_limits()
    yield from examine_deployments(engines, deep=deep, unusable=unusable)


def _package(extra: str, name: str) -> Finding:
    group = f"packages [{extra}]" if extra else "packages"
    for each in name.split("|"):
        version = installed(each)
        if version is not None:
            return Finding(group=group, name=each, status="ok", detail=version)
    wanted = f"parnet-deploy[{extra}]" if extra else "parnet-deploy"
    return Finding(
        group=group,
        name=name.partition("|")[0],
        status="absent" if name in DISPENSABLE else "missing",
        detail=f"not installed; needed by {_FOR[extra]}",
        fix=f"pip install '{wanted}'",
    )


def _backends(gpus: GpuReport) -> Iterator[Finding]:
    for name in sorted(BACKENDS, key=lambda name: BACKENDS[name].rank):
        if BACKENDS[name].extra == "gpu" and not gpus.gpus:
            yield Finding(
                group="backends",
                name=name,
                status="absent",
                detail="for NVIDIA GPUs, of which there are none",
                fix="none needed without a GPU",
            )
            continue
        if on_host(name) and not is_installed(name):
            yield Finding(
                group="backends",
                name=name,
                status="missing" if name == "onnxruntime" else "absent",
                detail="not installed",
                fix=f"pip install 'parnet-deploy[{BACKENDS[name].extra}]'",
            )
            continue
        found = probe_backend(name)
        yield Finding(
            group="backends",
            name=name,
            status="ok" if found.fix is None else "missing",
            detail=found.detail,
            fix=found.fix,
        )


def _instructions(machine: dict[str, Any]) -> Finding:
    found = ", ".join(machine["isa"]) or "no vector instructions known"
    slow = platform.machine() in ("x86_64", "AMD64") and "avx2" not in machine["isa"]
    return Finding(
        group="hardware",
        name="cpu",
        status="warning" if slow else "ok",
        detail=f"{machine['cpu']} ({found}); INT8: {int8_text(machine['isa'])}",
        fix="in a virtual machine: let it see the host's CPU (AVX2 is missing)" if slow else None,
    )


def _cores(machine: dict[str, Any]) -> Finding:
    """The load is told and not warned of: it is over when somebody acts on it; ``bench`` warns."""
    usable, total = machine["cores_usable"], machine["cores_total"]
    less = total is not None and usable < total
    load = machine["load_average"]
    shown = f", load {load[0]:.1f}" if load else ""
    return Finding(
        group="hardware",
        name="cores",
        status="warning" if less else "ok",
        detail=f"{usable} usable of {total} (affinity and cgroup){shown}",
        fix="the affinity mask (taskset) or the cgroup's CPU quota keeps the others away"
        if less
        else None,
    )


def _memory(machine: dict[str, Any]) -> Finding:
    total = machine["memory_mib"]
    limits = [_read_mib(Path("/sys/fs/cgroup/memory.max"))]
    limits.append(_read_mib(Path("/sys/fs/cgroup/memory/memory.limit_in_bytes")))
    limit = min((x for x in limits if x is not None and (total is None or x < total)), default=None)
    detail = f"{total / 1024:.1f} GiB" if total is not None else "unknown"
    if limit is not None:
        detail += f", limited to {limit / 1024:.1f} GiB by the cgroup"
    return Finding(group="hardware", name="memory", status="ok", detail=detail)


def _disk(engines: Path) -> Finding:
    there = engines.absolute()
    while not there.exists():
        there = there.parent
    free_mib = shutil.disk_usage(there).free // 2**20
    scarce = free_mib < _LEAST_FREE_MIB
    return Finding(
        group="hardware",
        name="disk",
        status="warning" if scarce else "ok",
        detail=f"{free_mib / 1024:.1f} GiB free for {engines}",
        fix="free some, or put deployments elsewhere with --root" if scarce else None,
    )


def _read_mib(path: Path) -> int | None:
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) // 2**20 if text.isdigit() else None
