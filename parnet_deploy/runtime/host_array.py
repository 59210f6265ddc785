"""Host memory that somebody else owns, as an array."""

from __future__ import annotations

import ctypes
from math import prod

import numpy as np
from numpy.typing import NDArray


def array_at(address: int, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """The float32 tensor at an address, C-contiguous. It must outlive the array."""
    memory = (ctypes.c_float * prod(shape)).from_address(address)
    return np.ctypeslib.as_array(memory).reshape(shape)
