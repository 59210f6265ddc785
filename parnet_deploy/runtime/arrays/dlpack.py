"""DLPack without a library: read a capsule of anybody, write one for memory of ours.

Reading never consumes the capsule: it is kept as the owner, and its own destructor tells the
producer when it goes. Writing lets numpy make the capsule, around an array that never looks at its
memory, and then names the device. So the deleter that a consumer calls, from any thread and while
an exception is on its way, is numpy's compiled one: one made of Python code loses the exception and
crashes the interpreter.

Source: the DLPack specification 1.0 (``dlpack.h``) and the Python array API standard
(``__dlpack__``); layouts are those of their C structures on a 64-bit machine.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import InputError

CPU, CUDA, CUDA_HOST, CUDA_MANAGED = 1, 2, 3, 13
"""DLPack device types."""

FLOAT = 2
"""DLPack type code of IEEE floating point numbers."""

VERSION = (1, 0)
"""The newest version that this module asks for and writes. The major one is the layout's."""

_PLAIN, _VERSIONED = b"dltensor", b"dltensor_versioned"
_READ_ONLY = 1


class _Device(ctypes.Structure):
    _fields_ = (("kind", ctypes.c_int32), ("ordinal", ctypes.c_int32))


class _DataType(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16))


class _Tensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device", _Device),
        ("ndim", ctypes.c_int32),
        ("dtype", _DataType),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


class _Versioned(ctypes.Structure):
    _fields_ = (
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("manager_ctx", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
        ("flags", ctypes.c_uint64),
        ("tensor", _Tensor),
    )


_is_capsule = ctypes.pythonapi.PyCapsule_IsValid
_is_capsule.argtypes, _is_capsule.restype = (ctypes.py_object, ctypes.c_char_p), ctypes.c_int
_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_pointer.argtypes, _pointer.restype = (ctypes.py_object, ctypes.c_char_p), ctypes.c_void_p


@dataclass(frozen=True, kw_only=True)
class ForeignTensor:
    """What a capsule says. ``strides`` count elements; None means C-contiguous.

    Owns: ``owner`` keeps the memory alive, and nothing else does.
    """

    address: int
    shape: tuple[int, ...]
    strides: tuple[int, ...] | None
    dtype: tuple[int, int, int]  # type code, bits, lanes
    device: tuple[int, int]  # type, ordinal
    read_only: bool
    owner: object


def read_capsule(capsule: object) -> ForeignTensor:
    """Read a capsule that ``__dlpack__`` returned, of either layout. It stays unconsumed.

    Raises:
        InputError: It is no DLPack capsule, was consumed before, or has a layout to come.
    """
    read_only = False
    if _is_capsule(capsule, _PLAIN):
        tensor = _Tensor.from_address(_pointer(capsule, _PLAIN))
    elif _is_capsule(capsule, _VERSIONED):
        managed = _Versioned.from_address(_pointer(capsule, _VERSIONED))
        if managed.major != VERSION[0]:  # then nothing behind the version may be read
            raise InputError(
                f"input: got DLPack version {managed.major}.{managed.minor}, expected "
                f"{VERSION[0]}.x. Copy the array to a library that speaks it, for example torch."
            )
        tensor, read_only = managed.tensor, bool(managed.flags & _READ_ONLY)
    else:
        raise InputError(
            f"input: got {capsule!r} from __dlpack__, expected a DLPack capsule that nobody has "
            "consumed. Hand in the array itself."
        )
    ndim, dtype, device = tensor.ndim, tensor.dtype, tensor.device
    return ForeignTensor(
        address=(tensor.data or 0) + tensor.byte_offset,
        shape=tuple(tensor.shape[:ndim]),
        strides=tuple(tensor.strides[:ndim]) if tensor.strides else None,
        dtype=(dtype.code, dtype.bits, dtype.lanes),
        device=(device.kind, device.ordinal),
        read_only=read_only,
        owner=capsule,
    )


def make_capsule(
    address: int,
    shape: tuple[int, ...],
    owner: object,
    *,
    device: tuple[int, int],
    max_version: tuple[int, int] | None = None,
) -> object:
    """A capsule for C-contiguous float32 memory. It is versioned where the consumer asks for it.

    Args:
        address: Where the memory starts.
        shape: Extents.
        owner: What keeps the memory alive; let go when the consumer is done, or when the capsule
            is dropped without one.
        device: DLPack device type and ordinal.
        max_version: The newest version that the consumer reads; None: only the old layout.
    """
    array: Any = view_of(address, shape, owner)
    versioned = max_version is not None and tuple(max_version) >= VERSION and _NUMPY_HAS_VERSIONS
    capsule: object = array.__dlpack__(max_version=VERSION) if versioned else array.__dlpack__()
    if versioned:
        tensor = _Versioned.from_address(_pointer(capsule, _VERSIONED)).tensor
    else:
        tensor = _Tensor.from_address(_pointer(capsule, _PLAIN))
    tensor.device.kind, tensor.device.ordinal = device
    return capsule


def view_of(address: int, shape: tuple[int, ...], owner: object) -> NDArray[np.float32]:
    """An array over memory that ``owner`` keeps alive. Look inside only if it is the host's."""
    return np.asarray(_Memory(address, shape, owner))


class _Memory:
    """What numpy needs to know of memory that is not its own."""

    def __init__(self, address: int, shape: tuple[int, ...], owner: object) -> None:
        self.owner = owner
        self.__array_interface__ = {
            "version": 3,
            "typestr": np.dtype(np.float32).str,
            "shape": shape,
            "data": (address, False),
        }


def _numpy_has_versions() -> bool:
    """Whether numpy writes versioned capsules, as it does from 2.1 on."""
    array: Any = np.zeros(1, np.float32)
    try:
        array.__dlpack__(max_version=VERSION)
    except TypeError:
        return False
    return True


_NUMPY_HAS_VERSIONS = _numpy_has_versions()
