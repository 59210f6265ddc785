"""What a call holds in memory, and memory of a caller that shows when somebody wrote to it."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable

import numpy as np

SMALL_BYTES = 8192
"""What a call may hold beside tensors (frames, tuples, a future); those of the tests are larger."""

_GUARD = 64
_PATTERN = np.uint32(0x7FA5_A5A5)  # a NaN that no arithmetic makes


def peak_bytes(call: Callable[[], object]) -> int:
    """The most that Python and numpy held at once during a call, beyond what they held before."""
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        call()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


class CallersMemory:
    """An image batch and room for logits, each between guards, bit patterns all over."""

    def __init__(self, x: np.ndarray, classes: int) -> None:
        self.shape = len(x), classes
        self._image, self._logits = _pattern(x.size), _pattern(len(x) * classes)
        self.image = self._image[_GUARD:-_GUARD].view(np.float32).reshape(x.shape)
        self.image[...] = x
        self._before = self._image.copy(), self._logits.copy()

    @property
    def addresses(self) -> tuple[int, int]:
        """Of the image and of the logits."""
        return self.image.ctypes.data, self._logits.ctypes.data + 4 * _GUARD

    @property
    def logits(self) -> np.ndarray:
        return self._logits[_GUARD:-_GUARD].view(np.float32).reshape(self.shape)

    def check_untouched(self) -> None:
        """Nobody wrote anywhere."""
        np.testing.assert_array_equal(self._image, self._before[0])
        np.testing.assert_array_equal(self._logits, self._before[1])

    def check_answered(self, expected: np.ndarray) -> None:
        """The logits were written, and nothing else."""
        np.testing.assert_allclose(self.logits, expected, rtol=1e-5, atol=1e-6)
        self.logits.view(np.uint32)[...] = _PATTERN
        self.check_untouched()


def _pattern(count: int) -> np.ndarray:
    return np.full(count + 2 * _GUARD, _PATTERN, np.uint32)
