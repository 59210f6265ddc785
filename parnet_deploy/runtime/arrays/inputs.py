"""What callers hand in: arrays and addresses, checked before anything is touched."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import InputError, SpecError
from ...input_size import InputSize

Images = NDArray[np.float32]

NO_EXPORT = (BufferError, TypeError, ValueError, RuntimeError)
"""What libraries raise for an array that DLPack cannot carry."""

_MAX_COUNT = 1024
_ADDRESSES = 1 << 64
_HOST_MEMORY = (1, 3)  # DLPack device types: CPU, pinned host memory


def as_images(x: object, channels: int) -> Images:
    """The caller's batch as (N, C, H, W) float32, C-contiguous.

    A numpy array, or anything with DLPack on the host, that is so already is used in place; one
    with other strides is copied. No other dtype is converted, for that would hide a mistake.

    Raises:
        InputError: Wrong type, device, dtype or shape.
    """
    if not isinstance(x, np.ndarray):
        x = _from_dlpack(x)
    if x.dtype != np.float32:
        raise InputError(
            f"input: got dtype {x.dtype}, expected float32 in native byte order. "
            "Convert it with x.astype(np.float32)."
        )
    if x.ndim != 4 or x.shape[1] != channels:
        raise InputError(
            f"input: got shape {x.shape}, expected (N, {channels}, H, W). "
            "Images stand channels first, with a batch axis: x[np.newaxis]."
        )
    if x.flags.c_contiguous and x.flags.aligned:
        return x
    return np.require(x, dtype=np.float32, requirements=("C", "A"))


def address_of(array: NDArray[Any]) -> int:
    """Where the array's first element is. The caller keeps the array alive."""
    address: int = array.__array_interface__["data"][0]
    return address


def check_address(name: str, address: object) -> int:
    """A raw address that can hold float32.

    Raises:
        InputError: Not an integer, null, not aligned or beyond 64 bits.
    """
    number = _integer(name, address)
    if not 0 < number < _ADDRESSES or number % 4:
        raise InputError(
            f"{name}: got address {number:#x}, expected one that is not null and a multiple of 4, "
            "below 2**64."
        )
    return number


def check_stream(stream: object) -> int:
    """A raw stream handle. Whether there is such a stream, the device says.

    Raises:
        InputError: Not an integer of 64 bits.
    """
    number = _integer("stream", stream)
    if not 0 <= number < _ADDRESSES:
        raise InputError(f"stream: got {number:#x}, expected a raw handle from 0 to 2**64 - 1.")
    return number


def check_count(what: str, value: object) -> None:
    """Refuse a number of slots or threads that cannot be.

    Raises:
        SpecError: Not an integer from 1 to 1024.
    """
    if type(value) is not int:
        raise SpecError(f"{what}: got {value!r}, expected an integer.")
    if not 1 <= value <= _MAX_COUNT:
        raise SpecError(f"{what}: got {value}, expected 1 to {_MAX_COUNT}.")


def check_shape(n: object, size: object, accepted: InputSize) -> tuple[int, int, int]:
    """(N, H, W) from the arguments of ``run_into``; ``size`` None means the one size there is.

    Raises:
        InputError: Not integers, or no size where there are several.
    """
    if size is None and accepted.fixed:
        return (_integer("n", n), *accepted.low)
    if not isinstance(size, tuple) or len(size) != 2:
        raise InputError(f"size: got {size!r}, expected (height, width) in {accepted}.")
    return _integer("n", n), _integer("height", size[0]), _integer("width", size[1])


def _integer(name: str, value: object) -> int:
    if type(value) is int:
        return value
    try:
        return operator.index(value)  # type: ignore[arg-type]
    except TypeError as error:
        raise InputError(f"{name}: got {value!r}, expected an integer.") from error


def _from_dlpack(x: Any) -> NDArray[Any]:
    """A view of a DLPack object on the host."""
    try:
        device = dlpack_device(x)
    except NO_EXPORT as error:
        raise _unreadable(x, error) from error
    if device is None and hasattr(x, "__cuda_array_interface__"):
        device = (2, 0)
    if device is None:
        raise InputError(
            f"input: got a {type(x).__name__}, expected a numpy array or a DLPack object. "
            "Convert it with np.asarray(x, dtype=np.float32)."
        )
    if device[0] not in _HOST_MEMORY:
        kind = "a CUDA array" if device[0] == 2 else f"memory of DLPack device type {device[0]}"
        raise InputError(
            f"input: got {kind}, expected host memory, for this plan takes images from the host. "
            "Copy it to the host first, for example x.cpu()."
        )
    try:
        refuse_bits(x)
        return np.from_dlpack(x)
    except NO_EXPORT as error:
        raise _unreadable(x, error) from error


def refuse_bits(x: Any) -> None:
    """Refuse a torch tensor whose values are its memory negated: its DLPack export forgets that."""
    for bit in ("neg", "conj"):
        ask = getattr(x, f"is_{bit}", None)
        if callable(ask) and ask() is True:
            raise InputError(
                f"input: got a {type(x).__name__} with the {bit} bit, which DLPack does not carry, "
                f"expected plain values. Call resolve_{bit}() on it."
            )


def _unreadable(x: object, error: Exception) -> InputError:
    why = str(error).rstrip(".")
    return InputError(
        f"input: cannot read this {type(x).__name__}: {why}. Expected dense float32 on the host."
    )


def dlpack_device(x: Any) -> tuple[int, int] | None:
    """DLPack device type and ordinal; None if the object does not speak DLPack."""
    if not hasattr(x, "__dlpack__") or not hasattr(x, "__dlpack_device__"):
        return None
    kind, ordinal = x.__dlpack_device__()
    return int(kind), int(ordinal)
