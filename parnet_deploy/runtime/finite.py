"""Whether logits in a slot's memory are finite numbers."""

from __future__ import annotations

import ctypes

import numpy as np


class FiniteCheck:
    """Looks at the same float32 memory each time; allocates nothing.

    Args:
        address: Where the logits are. The caller keeps the memory alive.
        nbytes: How many of them, in bytes.
    """

    def __init__(self, address: int, nbytes: int) -> None:
        memory = memoryview((ctypes.c_char * nbytes).from_address(address))
        self._logits = np.frombuffer(memory, dtype=np.float32)
        self._mask = np.empty(self._logits.shape, dtype=np.bool_)

    def __call__(self) -> bool:
        """False if there is a NaN or an infinity."""
        np.isfinite(self._logits, out=self._mask)
        return bool(self._mask.all())
