"""Which NVIDIA GPUs there are, asked of the driver itself: no CUDA package is loaded.

Source: the CUDA driver API (``cuda.h``); the functions named here keep their names and arguments
since CUDA 11.4.
"""

from __future__ import annotations

import ctypes
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..errors import DeviceUnavailableError

_MULTIPROCESSORS, _MAJOR, _MINOR = 16, 75, 76  # CUdevice_attribute
_RELEASE = Path("/sys/module/nvidia/version")
_TEXT_BYTES = 256


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """One device. ``ordinal`` counts what the process may see (CUDA_VISIBLE_DEVICES)."""

    ordinal: int
    name: str
    compute_capability: str
    memory_mib: int
    multiprocessors: int
    uuid: str
    pci_bus: str

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class GpuReport:
    """What the driver says.

    ``cuda`` is the newest CUDA version that the driver runs, ``release`` its own version. ``peers``
    holds the pairs (from, to) of which the first can reach the memory of the second. ``why`` says
    why there are no GPUs.
    """

    gpus: tuple[Gpu, ...] = ()
    cuda: tuple[int, int] | None = None
    release: str | None = None
    peers: frozenset[tuple[int, int]] = frozenset()
    why: str = ""

    @property
    def cuda_text(self) -> str | None:
        """``cuda`` as 13.0."""
        return None if self.cuda is None else "{}.{}".format(*self.cuda)


class _DriverError(Exception):
    """A driver call that did not return 0."""


def read_gpus() -> GpuReport:
    """Ask the driver for everything. It stays loaded; no context is made."""
    driver, count, why = _start()
    if driver is None:
        return GpuReport(why=why)
    try:
        version = _integer(driver, "cuDriverGetVersion")
        handles = [_integer(driver, "cuDeviceGet", i) for i in range(count)]
        gpus = tuple(_read(driver, i, handle) for i, handle in enumerate(handles))
        peers = frozenset(
            (i, k)
            for i, here in enumerate(handles)
            for k, there in enumerate(handles)
            if i != k and _integer(driver, "cuDeviceCanAccessPeer", here, there)
        )
    except (_DriverError, AttributeError) as error:  # AttributeError: the driver is too old
        return GpuReport(why=f"the NVIDIA driver does not answer ({error})")
    cuda = (version // 1000, version % 1000 // 10)
    return GpuReport(gpus=gpus, cuda=cuda, release=_release(), peers=peers)


def gpu_facts(ordinal: int) -> dict[str, Any]:
    """What a GPU is, and its driver: name, compute capability, memory and so on, as JSON types.

    Raises:
        DeviceUnavailableError: There is no such GPU.
    """
    found = read_gpus()
    for gpu in found.gpus:
        if gpu.ordinal == ordinal:
            return {**gpu.to_json(), "driver": found.release, "driver_cuda": found.cuda_text}
    have = ", ".join(str(gpu.ordinal) for gpu in found.gpus) or found.why
    raise DeviceUnavailableError(
        f"GPU {ordinal}: got no such device, expected one of those here ({have}). "
        "nvidia-smi and CUDA_VISIBLE_DEVICES say which ones this process sees."
    )


def probe_gpus() -> tuple[int, str]:
    """Usable NVIDIA GPUs, and why there are none; asks the driver, loads no CUDA package."""
    _, count, why = _start()
    return count, why


def _start() -> tuple[Any, int, str]:
    """The driver and how many devices it sees; (None, 0, why) if it is of no use."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None, 0, "no NVIDIA driver (libcuda.so.1 was not found)"
    status = driver.cuInit(0)
    if status != 0:
        return None, 0, f"the NVIDIA driver does not start (cuInit: error {status})"
    count = ctypes.c_int(0)
    status = driver.cuDeviceGetCount(ctypes.byref(count))
    if status != 0 or count.value == 0:
        return None, 0, f"the NVIDIA driver sees no device (error {status})"
    return driver, count.value, ""


def _read(driver: Any, ordinal: int, handle: int) -> Gpu:
    memory = ctypes.c_size_t(0)
    _call(driver, "cuDeviceTotalMem_v2", ctypes.byref(memory), handle)
    identity = (ctypes.c_ubyte * 16)()
    _call(driver, "cuDeviceGetUuid", ctypes.byref(identity), handle)
    major, minor, multiprocessors = (
        _integer(driver, "cuDeviceGetAttribute", attribute, handle)
        for attribute in (_MAJOR, _MINOR, _MULTIPROCESSORS)
    )
    return Gpu(
        ordinal=ordinal,
        name=_text(driver, "cuDeviceGetName", handle),
        compute_capability=f"{major}.{minor}",
        memory_mib=memory.value >> 20,
        multiprocessors=multiprocessors,
        uuid=f"GPU-{uuid.UUID(bytes=bytes(identity))}",
        pci_bus=_text(driver, "cuDeviceGetPCIBusId", handle),
    )


def _call(driver: Any, name: str, *arguments: Any) -> None:
    status = getattr(driver, name)(*arguments)
    if status != 0:
        raise _DriverError(f"{name}: error {status}")


def _integer(driver: Any, name: str, *arguments: int) -> int:
    value = ctypes.c_int(0)
    _call(driver, name, ctypes.byref(value), *arguments)
    return value.value


def _text(driver: Any, name: str, handle: int) -> str:
    text = ctypes.create_string_buffer(_TEXT_BYTES)
    _call(driver, name, text, _TEXT_BYTES, handle)
    return text.value.decode(errors="replace")


def _release() -> str | None:
    try:
        return _RELEASE.read_text().strip() or None
    except OSError:
        return None
