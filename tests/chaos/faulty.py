"""A backend on the CPU whose engines do as they are told: hang, fail, write NaN or nonsense."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Iterable, Mapping

import numpy as np

from parnet_deploy.errors import ExecutionError
from parnet_deploy.runtime.backend import Backend, LoadedPlan
from parnet_deploy.runtime.onnxruntime.cpu import OnnxRuntimeBackend

HANG_S = 60.0


class Faults:
    """What engines are to do instead of their work; nothing at first. Thread-safe.

    ``hanging``: segments that wait before they run, until ``let``. ``failing``: that raise.
    ``wrong``: whose outputs are off by one. ``spoil``: what the last element of their outputs is.
    ``before``: called with the segment before each run.
    """

    def __init__(self) -> None:
        self.hanging: frozenset[str] = frozenset()
        self.failing: frozenset[str] = frozenset()
        self.spoil: Mapping[str, float] = {}
        self.wrong: frozenset[str] = frozenset()
        self.before: Callable[[str], None] = lambda segment: None
        self.loaded: list[str] = []  # backends, by whoever opens them through this
        self.entered = threading.Semaphore(0)
        self.closed = threading.Event()
        self._free = threading.Event()

    def hang(self, *segments: str) -> None:
        """From now on they hang."""
        self._free.clear()
        self.hanging = frozenset(segments)

    def let(self) -> None:
        """Those that hang come back, and nobody hangs any more."""
        self.hanging = frozenset()
        self._free.set()

    def wait_for_hang(self) -> None:
        """Block until one more run hangs."""
        assert self.entered.acquire(timeout=HANG_S)

    def enter(self, segment: str) -> None:
        """What happens before a segment runs."""
        self.before(segment)
        if segment in self.hanging:
            self.entered.release()
            assert self._free.wait(HANG_S)
        if segment in self.failing:
            raise ExecutionError(f"segment {segment}: the engine failed (injected). Try again.")

    def leave(self, segment: str, outputs: Iterable[np.ndarray]) -> None:
        """What happens to its outputs afterwards."""
        for array in outputs:
            if segment in self.spoil:
                array.flat[-1] = self.spoil[segment]
            if segment in self.wrong:
                array += 1


class _Binding:
    def __init__(self, inner, name: str, outputs: list[np.ndarray], faults: Faults) -> None:
        self._inner, self._name, self._outputs, self._faults = inner, name, outputs, faults
        self.set_address, self.close = inner.set_address, inner.close

    def run(self) -> None:
        self._faults.enter(self._name)
        self._inner.run()
        self._faults.leave(self._name, self._outputs)


class _Engine:
    def __init__(self, inner, name: str, faults: Faults) -> None:
        self.inputs, self.outputs = inner.inputs, inner.outputs
        self._inner, self._name, self._faults = inner, name, faults

    def bind(self, tensors, slot: int) -> _Binding:
        inner = self._inner.bind(tensors, slot)
        outputs = [_array(tensors[name]) for name in self.outputs]
        return _Binding(inner, self._name, outputs, self._faults)

    def enqueue(self, binding: _Binding, stream) -> None:
        stream.submit(binding.run, self._name)

    def close(self) -> None:
        self._inner.close()
        self._faults.closed.set()


class FaultyBackend:
    """ONNX Runtime on the CPU, with faults."""

    name = "onnxruntime"

    def __init__(self, faults: Faults, inner: Backend | None = None) -> None:
        self._faults, self._inner = faults, inner or OnnxRuntimeBackend()

    def load(self, *args, **more) -> LoadedPlan:
        """See ``backend.Backend``."""
        found = self._inner.load(*args, **more)
        engines = {
            name: _Engine(engine, name, self._faults) for name, engine in found.engines.items()
        }
        return LoadedPlan(devices=found.devices, engines=engines, facts=found.facts)


def _array(tensor) -> np.ndarray:
    """The memory of a tensor on the host."""
    count = int(np.prod(tensor.shape))
    memory = (ctypes.c_float * count).from_address(tensor.buffer.address)
    return np.ctypeslib.as_array(memory).reshape(tensor.shape)
