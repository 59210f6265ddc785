"""Threads that call one runtime in every way there is, and compare each answer."""

from __future__ import annotations

import random
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from functools import cache, partial
from threading import Event
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parnet_deploy import Runtime
from parnet_deploy.errors import BackendError
from parnet_deploy.spec import ModelSpec
from tests.chaos.exact import reference
from tests.chaos.tally import Tally
from tests.chaos.worlds import World

Array = NDArray[np.float32]

_POOL = 12
_MAX_PENDING = 4


class Caller:
    """One thread's calls. Its stream and its device memory are made when it is.

    A way of calling returns what must hold later, or nothing if the answer was compared at once.
    """

    def __init__(self, world: World, runtime: Runtime, index: int, ends: Event) -> None:
        self.world, self.runtime, self.tally = world, runtime, Tally()
        self._rng = random.Random(world.seed * 64 + index)
        self._ends, self._ends_at = ends, self._rng.randrange(world.calls)
        self._ways: dict[str, Callable[[Array, Array], None]] = {
            "call": self._call,
            "run_into": self._run_into,
            "submit": self._submit,
        }
        self._futures: list[tuple[Future[Array], Array]] = []
        self._launched: list[tuple[str, Array, Array]] = []
        self._kept: list[object] = []  # what the stream may still read or write
        self._home = runtime._now.executor.home
        self._stream: Any = None
        if world.kind != "replans":  # nothing takes over in a caller's stream
            self._stream = self._home.create_stream(index)
            self._ways["launch"] = self._launch
            if world.kind != "closes":  # its logits are freed by close
                self._ways["enqueue"] = self._enqueue
        self._buffers: list[Any] = []

    def work(self) -> None:
        """Make all calls of the world, one after the other, or until it is closed."""
        for number in range(self.world.calls):
            if number == self._ends_at:
                self._ends.set()
            x, expected = self._images()
            way = self._rng.choice(list(self._ways))
            answered = self._try(way, partial(self._ways[way], x, expected))
            if self.world.kind == "closes" and not answered:
                break
            if self._rng.random() < 0.2 or len(self._launched) >= _MAX_PENDING:
                self._settle()
        self._settle()

    def close(self) -> None:
        """Free what it made."""
        for buffer in self._buffers:
            buffer.close()
        if self._stream is not None:
            self._stream.close()

    def _try(self, way: str, call: Callable[[], None]) -> bool:
        """Whether a call raised nothing; what it raises must be of a kind that may be here."""
        try:
            call()
        except BackendError as error:
            self.tally.runs[way] += 1
            self.tally.errors[type(error).__name__] += 1
            closes = "it is closed" in str(error)
            if self.world.kind == "calm" or closes is not (self.world.kind == "closes"):
                self._complain(way, f"raised {error!r}", wrong=False)
            return False
        return True

    def _judge(self, way: str, logits: Array, expected: Array) -> None:
        self.tally.runs[way] += 1
        if not np.array_equal(logits, expected):
            self._complain(way, f"answered {logits[:, 0]} for {expected[:, 0]}", wrong=True)

    def _complain(self, way: str, what: str, *, wrong: bool) -> None:
        self.tally.complain(wrong=wrong, text=f"world {self.world.seed}: {way} {what}")

    def _images(self) -> tuple[Array, Array]:
        """Some of the pool, and their logits."""
        multiple = self.world.spec.size_multiple
        low, high = self.world.size.low[0] // multiple, self.world.size.high[0] // multiple
        side = multiple * self._rng.randint(low, high)
        x, logits = _pool(self.world.spec, side)
        start = self._rng.randrange(_POOL)
        chosen = [
            (start + 5 * i) % _POOL for i in range(self._rng.randint(1, self.world.max_batch))
        ]
        return x[chosen], logits[chosen]

    def _call(self, x: Array, expected: Array) -> None:
        self._judge("call", self.runtime(x), expected)

    def _run_into(self, x: Array, expected: Array) -> None:
        logits = np.full_like(expected, np.nan)
        self.runtime.run_into(x.ctypes.data, logits.ctypes.data, len(x), size=x.shape[2:])
        self._judge("run_into", logits, expected)

    def _submit(self, x: Array, expected: Array) -> None:
        future = self.runtime.submit(x)
        if self._rng.random() < 0.2 and future.cancel():
            self.tally.cancelled += 1
        self._futures.append((future, expected))

    def _launch(self, x: Array, expected: Array) -> None:
        logits, image = np.full_like(expected, np.nan), self._made_in_the_stream(x)
        self._kept += [logits, image]
        addresses = image.ctypes.data, logits.ctypes.data
        self.runtime.run_into(*addresses, len(x), self._stream.handle, size=x.shape[2:])
        self._launched.append(("launch", logits, expected))

    def _enqueue(self, x: Array, expected: Array) -> None:
        logits, image = np.full_like(expected, np.nan), self._buffer(x)
        found = self.runtime.enqueue(OnDevice(image.address, x.shape), stream=self._stream.handle)
        buffer = found.owner.buffer
        self._home.download(logits.ctypes.data, buffer, logits.nbytes, self._stream)
        if self._rng.random() < 0.5:  # else its memory is used again at once
            self._kept.append(found)
        self._launched.append(("enqueue", logits, expected))

    def _buffer(self, x: Array) -> Any:
        """The images in memory of the device, behind what is in the stream."""
        buffer = self._home.allocate(x.nbytes)
        self._buffers.append(buffer)
        self._kept.append(x)
        self._home.upload(buffer, x.ctypes.data, x.nbytes, self._stream)
        return buffer

    def _made_in_the_stream(self, x: Array) -> Array:
        """The images on the host, but not before the stream gets there; now and then at once."""
        if self._rng.random() < 0.5:
            return x
        image = np.full_like(x, np.nan)
        self._kept.append(image)
        self._home.download(image.ctypes.data, self._buffer(x), x.nbytes, self._stream)
        return image

    def _settle(self) -> None:
        """Wait for everything, and compare it."""
        launched, self._launched = self._launched, []
        futures, self._futures = self._futures, []
        if self._stream is not None and self._synchronized(launched):
            for way, logits, expected in launched:
                self._judge(way, logits, expected)
        self._kept.clear()
        for future, expected in futures:
            self._try("submit", partial(self._collect, future, expected))

    def _synchronized(self, launched: list) -> bool:
        """Wait for the stream. If it failed, that is what came of all that was launched in it."""
        try:
            self._stream.synchronize()
        except BackendError as error:
            for way, *_ in launched:
                self._try(way, partial(_raise, error))
            return False
        return True

    def _collect(self, future: Future[Array], expected: Array) -> None:
        with suppress(CancelledError):
            self._judge("submit", future.result(), expected)


class OnDevice:
    """Memory of a simulated device, as other libraries hand theirs over."""

    def __init__(self, address: int, shape: tuple[int, ...]) -> None:
        self.__cuda_array_interface__ = {
            "version": 3,
            "typestr": "<f4",
            "shape": shape,
            "data": (address, False),
            "strides": None,
        }


@cache
def _pool(spec: ModelSpec, side: int) -> tuple[Array, Array]:
    """Images of whole numbers and their logits, one by one."""
    rng = np.random.default_rng(side)
    x = rng.integers(0, 1000, (_POOL, spec.in_channels, side, side)).astype(np.float32)
    return x, np.concatenate([reference(spec, image[None]) for image in x])


def _raise(error: BackendError) -> None:
    raise error
