"""The GPU of the child process: what it is, and its primary context made current.

TensorRT takes no device argument; it builds for the context that is current in its thread.
"""

from __future__ import annotations

import re
import uuid
from pathlib import Path
from typing import Any

from cuda.bindings import driver

from ..errors import DeviceUnavailableError, OutOfMemoryError

_DRIVER_FILE = Path("/proc/driver/nvidia/version")


def describe_device(ordinal: int) -> dict[str, Any]:
    """Name, uuid, compute capability, memory and driver of a GPU; plain JSON types.

    Raises:
        DeviceUnavailableError: There is no such GPU.
    """
    device = _device(ordinal)
    attribute = driver.CUdevice_attribute
    major, minor = (
        _checked(driver.cuDeviceGetAttribute(which, device), ordinal)
        for which in (
            attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR,
            attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR,
        )
    )
    name = _checked(driver.cuDeviceGetName(256, device), ordinal)
    identity = bytes(_checked(driver.cuDeviceGetUuid(device), ordinal).bytes)
    memory = int(_checked(driver.cuDeviceTotalMem(device), ordinal))
    cuda = int(_checked(driver.cuDriverGetVersion(), ordinal))
    return {
        "ordinal": ordinal,
        "name": name.split(b"\0")[0].decode("utf-8", "replace"),
        "uuid": f"GPU-{uuid.UUID(bytes=identity)}",
        "compute_capability": f"{major}.{minor}",
        "memory_mib": memory // 2**20,
        "driver": _driver_release(),
        "driver_cuda": f"{cuda // 1000}.{cuda % 1000 // 10}",
    }


def use_device(ordinal: int) -> None:
    """Make the primary context of a GPU current in this thread, until the process ends.

    Raises:
        DeviceUnavailableError: There is no such GPU, or no context can be made on it.
        OutOfMemoryError: Its memory is full.
    """
    context = _checked(driver.cuDevicePrimaryCtxRetain(_device(ordinal)), ordinal)
    _checked(driver.cuCtxSetCurrent(context), ordinal)


def _device(ordinal: int) -> Any:
    _checked(driver.cuInit(0), ordinal)
    return _checked(driver.cuDeviceGet(ordinal), ordinal)


def _checked(result: tuple[Any, ...], ordinal: int) -> Any:
    """The value of a driver call, or our error."""
    status, *values = result
    if status == driver.CUresult.CUDA_ERROR_OUT_OF_MEMORY:
        raise OutOfMemoryError(
            f"GPU {ordinal}: got {status.name}, expected memory for a context. "
            "Free memory of the GPU (other processes)."
        )
    if status != driver.CUresult.CUDA_SUCCESS:
        raise DeviceUnavailableError(
            f"GPU {ordinal}: got {status.name}, expected a GPU that can be used. "
            "Run: parnet-deploy doctor."
        )
    return values[0] if values else None


def _driver_release() -> str | None:
    """For example 580.65.06; None where the kernel module tells nothing (Jetson, containers)."""
    try:
        found = re.search(r"\b(\d{3}\.\d+(\.\d+)?)\b", _DRIVER_FILE.read_text())
    except OSError:
        return None
    return found[1] if found else None
