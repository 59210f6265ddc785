"""The protocol's tensors: datatypes, shapes, and raw bytes to arrays and back.

Nothing is allocated before the sizes agree, and numeric tensors are views of what was received.
Source: Open Inference Protocol v2, "Tensor Data", and Triton's binary tensor data extension.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from .request import Elements
from .wording import refuse, shown, shown_shape

BYTES = "BYTES"
"""Datatype of strings: each element is its length (4 bytes, little-endian) and its content."""

DTYPES: dict[str, np.dtype[np.generic]] = {
    "BOOL": np.dtype("?"),
    "UINT8": np.dtype("u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
}
"""The numeric datatypes. BF16 is not among them: numpy has none, and no model here takes it."""

MAX_RANK = 16
MAX_DIM = 2**31 - 1
MAX_ELEMENTS = 2**40
"""Above what any request can carry, and far below where numpy's own arithmetic would overflow."""

MAX_STRINGS = 16_384
"""Elements of a BYTES tensor: each costs a Python object, made while nothing else is served."""

_LENGTH = struct.Struct("<I")


def check_datatype(where: str, datatype: object) -> str:
    """The datatype, if it is one of the protocol's that this server reads."""
    if isinstance(datatype, str) and (datatype in DTYPES or datatype == BYTES):
        return datatype
    expected = f"one of {', '.join(DTYPES)}, {BYTES}"
    step = "Convert the tensor before it is sent"
    refuse(f"Datatype of {where}", got=shown(datatype), expected=expected, step=step)


def check_shape(where: str, shape: object) -> tuple[int, ...]:
    """The shape, if it is a list of sizes of which an array can be made."""
    if not isinstance(shape, Sequence) or isinstance(shape, (str, bytes)):
        _refuse_shape(where, shown(shape), "a list of sizes")
    if len(shape) > MAX_RANK:
        _refuse_shape(where, f"{len(shape)} dimensions", f"at most {MAX_RANK}")
    for size in shape:
        if type(size) is not int or not 0 <= size <= MAX_DIM:
            _refuse_shape(where, shown(size), f"whole numbers from 0 to {MAX_DIM}")
    found: tuple[int, ...] = tuple(shape)
    if math.prod(size or 1 for size in found) > MAX_ELEMENTS:
        _refuse_shape(where, shown_shape(found), f"at most {MAX_ELEMENTS} elements")
    return found


def elements_from_raw(
    where: str, datatype: str, shape: tuple[int, ...], raw: bytes | memoryview
) -> Elements:
    """A tensor of checked datatype and shape from its raw bytes.

    Owns: a numeric tensor is a read-only view of ``raw``, unaligned if ``raw`` is; the elements of
    a BYTES tensor are copies.
    """
    if datatype == BYTES:
        return strings_from_raw(where, shape, raw)
    return array_from_raw(where, datatype, shape, raw)


def array_from_raw(
    where: str, datatype: str, shape: tuple[int, ...], raw: bytes | memoryview
) -> NDArray[np.generic]:
    """A numeric tensor as a read-only view of ``raw``."""
    dtype = DTYPES[datatype]
    expected = math.prod(shape) * dtype.itemsize
    if len(raw) != expected:
        refuse(
            f"Data of {where}",
            got=f"{len(raw)} bytes",
            expected=f"{expected} for {datatype} of shape {shown_shape(shape)}",
            step="Send the whole tensor, row by row, and its own shape",
        )
    if datatype == "BOOL" and len(raw) and np.frombuffer(raw, np.uint8).max() > 1:
        refuse(
            f"Data of {where}",
            got="a byte above 1",
            expected="0 or 1 for each BOOL",
            step="Send it as an integer type if it is one",
        )
    found = np.frombuffer(raw, dtype) if expected else np.empty(0, dtype)
    found = found.reshape(shape)
    found.flags.writeable = False
    return found


def strings_from_raw(where: str, shape: tuple[int, ...], raw: bytes | memoryview) -> list[bytes]:
    """The elements of a BYTES tensor, row by row; every length is held against what is there."""
    count = check_string_count(where, shape)
    size = len(raw)
    found = []
    at = 0
    for index in range(count):
        start = at + _LENGTH.size
        if start > size:
            _refuse_strings(where, f"{index} elements", f"{count} of shape {shown_shape(shape)}")
        at = start + _LENGTH.unpack_from(raw, at)[0]
        if at > size:
            wanted = f"{at - start} bytes in element {index}, as its length says"
            _refuse_strings(where, f"{size - start} bytes", wanted)
        found.append(bytes(raw[start:at]))
    if at != size:
        _refuse_strings(where, f"{size - at} bytes after the last element", "none")
    return found


def check_string_count(where: str, shape: tuple[int, ...]) -> int:
    """How many strings the shape holds, if that many are taken."""
    count = math.prod(shape)
    if count > MAX_STRINGS:
        refuse(
            f"Shape of {where}",
            got=f"{shown_shape(shape)} of {BYTES}",
            expected=f"at most {MAX_STRINGS} strings",
            step="Send fewer at a time",
            kind="too-large",
        )
    return count


def check_range(where: str, datatype: str, smallest: int, largest: int) -> None:
    """Whole numbers, by their extremes, held against the integer type that they are to become."""
    limits = np.iinfo(DTYPES[datatype].name)
    for value in (smallest, largest):
        if not limits.min <= value <= limits.max:
            refuse(
                f"Data of {where}",
                got=f"{value}",
                expected=f"{limits.min} to {limits.max} for {datatype}",
                step="Scale it, or take a wider datatype",
            )


def raw_from_elements(datatype: str, data: Elements) -> bytes:
    """What a tensor is on the wire; the inverse of ``elements_from_raw``."""
    if isinstance(data, list):
        return b"".join(part for text in data for part in (_LENGTH.pack(len(text)), text))
    return data.astype(DTYPES[datatype], copy=False).tobytes()


def _refuse_shape(where: str, got: str, expected: str) -> NoReturn:
    step = "Send the shape of the data itself"
    refuse(f"Shape of {where}", got=got, expected=expected, step=step)


def _refuse_strings(where: str, got: str, expected: str) -> NoReturn:
    step = "Send each string as its length (4 bytes, little-endian) and its content"
    refuse(f"Data of {where}", got=got, expected=expected, step=step)
