"""A driver library (libcuda.so.1) that is not there."""

from __future__ import annotations

from typing import Any

ATTRIBUTES = {75: 9, 76: 0, 16: 132}


class ToyDriver:
    """Answers as the driver would: each method takes what ctypes would pass to it."""

    def __init__(self, devices: int = 2, *, cuda: int = 13000, peers: bool = True) -> None:
        self.devices, self.cuda, self.peers = devices, cuda, peers
        self.fails: dict[str, int] = {}

    def __getattribute__(self, name: str) -> Any:
        method = object.__getattribute__(self, name)
        if not name.startswith("cu") or name == "cuda":
            return method
        status = self.fails.get(name)
        return method if status is None else lambda *arguments: status

    def cuInit(self, flags: int) -> int:  # noqa: N802
        return 0

    def cuDeviceGetCount(self, count) -> int:  # noqa: N802
        return _put(count, self.devices)

    def cuDriverGetVersion(self, version) -> int:  # noqa: N802
        return _put(version, self.cuda)

    def cuDeviceGet(self, handle, ordinal: int) -> int:  # noqa: N802
        return _put(handle, 100 + ordinal)

    def cuDeviceGetAttribute(self, value, attribute: int, handle: int) -> int:  # noqa: N802
        assert handle >= 100
        return _put(value, ATTRIBUTES[attribute])

    def cuDeviceTotalMem_v2(self, size, handle: int) -> int:  # noqa: N802
        return _put(size, 81559 << 20)

    def cuDeviceGetUuid(self, identity, handle: int) -> int:  # noqa: N802
        identity._obj[:] = [handle % 256] * 16
        return 0

    def cuDeviceGetName(self, text, length: int, handle: int) -> int:  # noqa: N802
        text.value = b"NVIDIA Toy 3000"
        return 0

    def cuDeviceGetPCIBusId(self, text, length: int, handle: int) -> int:  # noqa: N802
        text.value = f"0000:{handle - 100:02x}:00.0".encode()
        return 0

    def cuDeviceCanAccessPeer(self, value, here: int, there: int) -> int:  # noqa: N802
        assert here != there
        return _put(value, int(self.peers))


def _put(reference: Any, value: int) -> int:
    reference._obj.value = value
    return 0


def install(monkeypatch, driver: ToyDriver | None) -> None:
    """Be what ``ctypes.CDLL`` finds; None: there is no driver."""

    def load(name: str) -> ToyDriver:
        assert name == "libcuda.so.1"
        if driver is None:
            raise OSError(name)
        return driver

    monkeypatch.setattr("parnet_deploy.machine.gpus.ctypes.CDLL", load)
