"""Limits of the operating system that work here runs into: shared memory, files, libraries."""

from __future__ import annotations

import ctypes
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from .finding import Finding

GROUP = "limits"
LEAST_FILES, LEAST_SHARED_MIB = 4096, 256
_ROOT = Path("/")

GPU_LIBRARIES = {
    "libcuda.so.1": "comes with NVIDIA's driver; in a container: start it with --gpus all",
    "libnvinfer.so.11|libnvinfer.so.10|libnvinfer.so.8": "pip install 'parnet-deploy[gpu]'",
    "libcudnn.so.9|libcudnn.so.8": "pip install nvidia-cudnn-cu13 (or -cu12, as the driver runs)",
}
"""Libraries by their names, any of which will do, and where they come from."""


def examine_limits(root: Path = _ROOT, files: int | None = None) -> Iterator[Finding]:
    """Open files for ``serve``, and shared memory for Ray and several processes.

    Args:
        root: Where ``dev`` is; for tests.
        files: The limit of open files, if the caller knows it; for tests.
    """
    files = _open_files() if files is None else files
    if files is not None:
        few = files < LEAST_FILES
        yield Finding(
            group=GROUP,
            name="open files",
            status="warning" if few else "ok",
            detail=f"{files} for one process" + (", and serve has one a client" if few else ""),
            fix=f"ulimit -n {LEAST_FILES} before serve, or its unit's LimitNOFILE" if few else None,
        )
    shared = root / "dev/shm"
    if shared.is_dir():
        free_mib = shutil.disk_usage(shared).free >> 20
        scarce = free_mib < LEAST_SHARED_MIB
        yield Finding(
            group=GROUP,
            name="shared memory",
            status="warning" if scarce else "ok",
            detail=f"{free_mib} MiB free in /dev/shm",
            fix="docker run --shm-size=2g, for serve --ray and for PyTorch" if scarce else None,
        )


def examine_devices(root: Path = _ROOT) -> Iterator[Finding]:
    """Device files of NVIDIA's driver that are there and may not be opened."""
    for node in sorted((root / "dev").glob("nvidia*")):
        if node.is_dir() or os.access(node, os.R_OK | os.W_OK):
            continue
        yield Finding(
            group="gpu",
            name=node.name,
            status="warning",
            detail="is there, and this user may not open it",
            fix="add the user to the group that owns it (ls -l /dev/nvidia*): video or render",
        )


def examine_libraries(
    load: Callable[[str], object] = ctypes.CDLL,
) -> Iterator[Finding]:
    """Whether the loader finds what GPU backends load, in its own words where it does not.

    Libraries that only Python packages bring are found by those packages, not by the loader: they
    are "absent" then, not missing.
    """
    for names, origin in GPU_LIBRARIES.items():
        said = ""
        for name in names.split("|"):
            try:
                load(name)
            except OSError as error:
                said = str(error)
            else:
                yield Finding(group="gpu", name=name, status="ok", detail="the loader finds it")
                break
        else:
            driver = names == "libcuda.so.1"
            yield Finding(
                group="gpu",
                name=names.partition("|")[0],
                status="missing" if driver else "absent",
                detail=said,
                fix=origin if driver else f"{origin}, if TensorRT or cuDNN cannot be loaded",
            )


def _open_files() -> int | None:
    try:
        import resource
    except ImportError:  # not on Windows
        return None
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
