"""A tensor's ``data`` in a JSON request: nested as its shape or flat, to an array or strings."""

from __future__ import annotations

import base64
import math
from itertools import chain
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from .request import Elements
from .tensors import BYTES, DTYPES, check_range, check_string_count
from .wording import refuse, shown, shown_shape

_TYPES: dict[str, tuple[frozenset[type], str]] = {
    "b": (frozenset({bool}), "true or false"),
    "i": (frozenset({int}), "whole numbers"),
    "u": (frozenset({int}), "whole numbers"),
    "f": (frozenset({int, float}), "numbers"),
}
"""By numpy's kind of dtype: the Python types that JSON gives, and their name in an error."""


def elements_from_json(
    where: str, datatype: str, shape: tuple[int, ...], data: object, *, base64_texts: bool = False
) -> Elements:
    """A tensor of checked datatype and shape from its ``data``.

    Args:
        where: The tensor, for errors.
        datatype: The protocol's name.
        shape: What the client says; the data must have exactly its elements.
        data: What JSON gave: any value at all.
        base64_texts: Texts of a BYTES tensor hold base64 (which is how JSON can carry an image);
            else they are UTF-8 themselves.
    """
    if datatype == BYTES:
        check_string_count(where, shape)
        return _strings(where, _flat(where, shape, data), base64_texts=base64_texts)
    return _array(where, datatype, _flat(where, shape, data)).reshape(shape)


def _flat(where: str, shape: tuple[int, ...], data: object) -> list[Any]:
    """The elements row by row; a nested list must have exactly the shape."""
    if not isinstance(data, list):
        _refuse(where, shown(data), "a list", "Send its elements, nested or flat")
    count = math.prod(shape)
    level: list[Any] = data
    if not level or type(level[0]) is not list:
        if len(level) != count:
            _refuse_count(where, shape, f"{len(level)} elements", f"{count}")
        return level
    for axis, size in enumerate(shape):
        if axis:
            if set(map(type, level)) - {list} or set(map(len, level)) - {size}:
                _refuse_count(where, shape, f"others at depth {axis + 1}", f"lists of {size}")
            level = list(chain.from_iterable(level))
        elif len(level) != size:
            _refuse_count(where, shape, f"a list of {len(level)}", f"{size} lists")
    return level


def _array(where: str, datatype: str, flat: list[Any]) -> NDArray[np.generic]:
    dtype = DTYPES[datatype]
    allowed, names = _TYPES[dtype.kind]
    for kind in set(map(type, flat)) - allowed:
        first = next(value for value in flat if type(value) is kind)
        _refuse(where, shown(first), f"{names} for {datatype}", "Send elements of that kind")
    if dtype.kind in "iu" and flat:
        check_range(where, datatype, min(flat), max(flat))
    if dtype.kind != "f":
        return np.array(flat, dtype)
    with np.errstate(over="ignore"):
        found = np.fromiter(flat, np.float64, len(flat)).astype(dtype, copy=False)
    finite = np.isfinite(found)
    if not finite.all():
        first = flat[int(np.argmin(finite))]
        _refuse_range(where, datatype, first, f"at most {np.finfo(found.dtype).max:.3g}")
    return found


def _strings(where: str, flat: list[Any], *, base64_texts: bool) -> list[bytes]:
    found = []
    for value in flat:
        if not isinstance(value, str):
            _refuse(where, shown(value), f"texts for {BYTES}", "Send elements of that kind")
        if not base64_texts:
            found.append(value.encode())
            continue
        try:
            found.append(base64.b64decode(value, validate=True))
        except ValueError:  # binascii.Error is one
            expected = "base64, as its content_type says"
            _refuse(where, shown(value), expected, "Encode it without line breaks")
    return found


def _refuse(where: str, got: str, expected: str, step: str) -> NoReturn:
    refuse(f"Data of {where}", got=got, expected=expected, step=step)


def _refuse_count(where: str, shape: tuple[int, ...], got: str, expected: str) -> NoReturn:
    expected = f"{expected} for shape {shown_shape(shape)}"
    _refuse(where, got, expected, "Send every element, nested as the shape or flat")


def _refuse_range(where: str, datatype: str, value: object, limits: str) -> NoReturn:
    _refuse(where, shown(value), f"{limits} for {datatype}", "Scale it, or take a wider datatype")
