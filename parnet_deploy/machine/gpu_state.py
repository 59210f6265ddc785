"""How the GPUs are right now, asked of NVML, the library behind nvidia-smi: no package is loaded.

Source: the NVML API (``nvml.h``). Functions that CUDA 13 calls deprecated are asked for only where
the newer ones are missing (before driver 535), or where there is none with the same arguments.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from typing import Any

_SM, _MEMORY = 1, 2  # nvmlClockType_t
_CORE = 0  # nvmlTemperatureSensors_t
_REASONS = (
    "nvmlDeviceGetCurrentClocksEventReasons",
    "nvmlDeviceGetCurrentClocksThrottleReasons",
)
_THROTTLED = {
    0x4: "power cap",
    0x8: "hardware slowdown",
    0x20: "heat (software)",
    0x40: "heat (hardware)",
    0x80: "power brake",
}
"""Bits of nvmlClocksEventReasons that mean slower than asked for. Idle (0x1), application clocks
(0x2), sync boost (0x10) and display clocks (0x100) are states that somebody chose."""


def read_gpu_states(uuids: Sequence[str]) -> list[dict[str, Any]]:
    """Clocks, temperature, power and why the clocks are low, of each GPU.

    What a driver does not tell is None (MIG slices tell little); no NVML, no rows.

    Args:
        uuids: As ``machine.gpus.read_gpus`` has them.
    """
    try:
        library = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return []
    if library.nvmlInit_v2() != 0:
        return []
    try:
        return list(_states(library, uuids))
    finally:
        library.nvmlShutdown()


def throttle_reasons(bits: int) -> list[str]:
    """In words, those that make a GPU slower than asked for."""
    return [text for bit, text in _THROTTLED.items() if bits & bit]


def _states(library: Any, uuids: Sequence[str]) -> Iterator[dict[str, Any]]:
    for uuid in uuids:
        handle = ctypes.c_void_p()
        by_uuid = library.nvmlDeviceGetHandleByUUID
        if by_uuid(ctypes.c_char_p(uuid.encode()), ctypes.byref(handle)) != 0:
            continue
        reasons = (_number(library, name, handle, wide=True) for name in _REASONS)
        bits = next((bits for bits in reasons if bits is not None), None)
        milliwatts = _number(library, "nvmlDeviceGetPowerUsage", handle)
        yield {
            "uuid": uuid,
            "sm_mhz": _number(library, "nvmlDeviceGetClockInfo", handle, _SM),
            "sm_max_mhz": _number(library, "nvmlDeviceGetMaxClockInfo", handle, _SM),
            "memory_mhz": _number(library, "nvmlDeviceGetClockInfo", handle, _MEMORY),
            "temperature_c": _number(library, "nvmlDeviceGetTemperature", handle, _CORE),
            "power_w": None if milliwatts is None else milliwatts / 1e3,
            "throttled": None if bits is None else throttle_reasons(bits),
        }


def _number(
    library: Any, name: str, handle: ctypes.c_void_p, *arguments: int, wide: bool = False
) -> int | None:
    """What a function writes to its last argument; None if it fails or is not there."""
    value = ctypes.c_ulonglong(0) if wide else ctypes.c_uint(0)
    function = getattr(library, name, None)
    if function is None or function(handle, *arguments, ctypes.byref(value)) != 0:
        return None
    return value.value
