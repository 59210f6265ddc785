"""Memory of simulated devices, as buffers and by address."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ...errors import BackendError
from ..device import Buffer
from .simulator import Memory

if TYPE_CHECKING:
    from .device import FakeDevice


class FakeBuffer:
    """See ``device.Buffer``. The address is made up: reading it on the host would crash."""

    def __init__(self, device: FakeDevice, nbytes: int, address: int) -> None:
        self.device = device.ordinal
        self.nbytes = nbytes
        self.address = address
        self.memory = Memory(device.ordinal, nbytes)
        self._owner = device
        device.simulator.memories[address] = self.memory

    def view(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """The tensor at the start of the buffer, not a copy."""
        return self.memory.data[: int(np.prod(shape))].reshape(shape)

    def close(self) -> None:
        """See ``device.Buffer``."""
        with self._owner.simulator.lock:
            if not self.memory.freed:
                self.memory.freed = True
                self._owner.used_bytes -= self.nbytes


class CallersMemory:
    """What a caller names by the address where it starts: of the host, or of a simulated device.

    ``memories`` is empty for the host, for the simulator does not watch that, and ``device`` None.
    """

    def __init__(self, address: int, found: Memory | None) -> None:
        self._address, self._found = address, found
        self.memories: tuple[Memory, ...] = () if found is None else (found,)
        self.device = None if found is None else found.device

    def read(self, nbytes: int) -> NDArray[np.float32]:
        """A copy of the first bytes."""
        data = np.empty(nbytes // 4, dtype=np.float32)
        if self._found is None:
            ctypes.memmove(data.ctypes.data, self._address, nbytes)
        else:
            data[:] = self._found.data[: data.size]
        return data

    def write(self, data: NDArray[np.float32]) -> None:
        """Overwrite the first bytes."""
        if self._found is None:
            ctypes.memmove(self._address, data.ctypes.data, data.nbytes)
        else:
            self._found.data[: data.size] = data


def own_buffer(buffer: Buffer) -> FakeBuffer:
    """The buffer as one of ours.

    Raises:
        BackendError: It is of another backend.
    """
    if not isinstance(buffer, FakeBuffer):
        raise BackendError(f"buffer: got a {type(buffer).__name__}, expected a fake device's.")
    return buffer
