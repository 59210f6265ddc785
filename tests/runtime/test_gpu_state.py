"""What NVML says, asked of a library that is not there."""

from __future__ import annotations

from typing import Any

import pytest

from parnet_deploy.machine.gpu_state import read_gpu_states, throttle_reasons


class ToyNvml:
    """Answers as NVML would. ``missing`` are functions that this driver does not have."""

    def __init__(self, *, init: int = 0, missing: tuple[str, ...] = ()) -> None:
        self.init, self.missing, self.open = init, missing, False

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("nvml") and name in object.__getattribute__(self, "missing"):
            raise AttributeError(name)
        return object.__getattribute__(self, name)

    def nvmlInit_v2(self) -> int:  # noqa: N802
        self.open = self.init == 0
        return self.init

    def nvmlShutdown(self) -> int:  # noqa: N802
        self.open = False
        return 0

    def nvmlDeviceGetHandleByUUID(self, uuid, handle) -> int:  # noqa: N802
        assert self.open
        handle._obj.value = 7
        return 0 if uuid.value == b"GPU-1" else 6

    def nvmlDeviceGetClockInfo(self, handle, kind: int, value) -> int:  # noqa: N802
        return _put(handle, value, {1: 1410, 2: 2619}[kind])

    def nvmlDeviceGetMaxClockInfo(self, handle, kind: int, value) -> int:  # noqa: N802
        assert kind == 1
        return _put(handle, value, 1980)

    def nvmlDeviceGetTemperature(self, handle, sensor: int, value) -> int:  # noqa: N802
        assert sensor == 0
        return _put(handle, value, 61)

    def nvmlDeviceGetPowerUsage(self, handle, value) -> int:  # noqa: N802
        return 3  # not supported

    def nvmlDeviceGetCurrentClocksEventReasons(self, handle, value) -> int:  # noqa: N802
        return _put(handle, value, 0x1 | 0x4)

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle, value) -> int:  # noqa: N802
        return _put(handle, value, 0x40)


def _put(handle: Any, reference: Any, value: int) -> int:
    assert handle.value == 7
    reference._obj.value = value
    return 0


def install(monkeypatch, library: ToyNvml | None) -> ToyNvml | None:
    def load(name: str) -> ToyNvml:
        assert name == "libnvidia-ml.so.1"
        if library is None:
            raise OSError(name)
        return library

    monkeypatch.setattr("parnet_deploy.machine.gpu_state.ctypes.CDLL", load)
    return library


def test_a_gpu_is_described_and_one_that_is_unknown_left_out(monkeypatch) -> None:
    library = install(monkeypatch, ToyNvml())
    assert read_gpu_states(["GPU-1", "MIG-2"]) == [
        {
            "uuid": "GPU-1",
            "sm_mhz": 1410,
            "sm_max_mhz": 1980,
            "memory_mhz": 2619,
            "temperature_c": 61,
            "power_w": None,
            "throttled": ["power cap"],
        }
    ]
    assert library is not None
    assert not library.open


def test_an_older_driver_has_the_reasons_under_their_old_name(monkeypatch) -> None:
    new = "nvmlDeviceGetCurrentClocksEventReasons"
    install(monkeypatch, ToyNvml(missing=(new,)))
    assert read_gpu_states(["GPU-1"])[0]["throttled"] == ["heat (hardware)"]
    install(monkeypatch, ToyNvml(missing=(new, "nvmlDeviceGetCurrentClocksThrottleReasons")))
    assert read_gpu_states(["GPU-1"])[0]["throttled"] is None


@pytest.mark.parametrize("library", [None, ToyNvml(init=9)])
def test_without_nvml_there_are_no_rows(monkeypatch, library) -> None:
    install(monkeypatch, library)
    assert read_gpu_states(["GPU-1"]) == []


def test_states_that_somebody_chose_are_no_throttling() -> None:
    assert throttle_reasons(0x1 | 0x2 | 0x10 | 0x100) == []
    assert throttle_reasons(0x8 | 0x80) == ["hardware slowdown", "power brake"]
