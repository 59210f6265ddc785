"""Batches that may be on a GPU: where they are, and which stream has to be waited for."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np

from ...errors import InputError
from . import dlpack
from .device_array import LEGACY_DEFAULT_STREAM
from .inputs import (
    NO_EXPORT,
    Images,
    address_of,
    as_images,
    check_address,
    check_stream,
    dlpack_device,
    refuse_bits,
)

Locate = Callable[[int], tuple[int | None, bool]]
"""The driver's view of an address: (ordinal of its device or None, whether it is device memory)."""

_ON_DEVICE = (dlpack.CUDA, dlpack.CUDA_MANAGED)
_ACCEPTED_STREAMS = (
    "an integer (cudaStream_t), or an object with __cuda_stream__() (cuda.core, cuda.bindings), "
    ".cuda_stream (torch), .ptr (cupy) or .handle (pycuda)"
)
_NO_SYNC = -1


@dataclass(frozen=True, kw_only=True)
class Source:
    """A checked batch of float32 images, C-contiguous.

    ``device`` is None for host memory. ``stream`` is the raw handle of a stream whose work writes
    the memory: what reads it is enqueued behind that stream's work so far. None: nothing to wait
    for. 1 and 2 are CUDA's handles of the legacy and the per-thread default stream.

    Owns: ``owner`` keeps the memory alive; hold on to the Source until the work is done.
    """

    address: int
    shape: tuple[int, int, int]  # (N, H, W)
    device: int | None
    stream: int | None
    owner: object


def as_source(
    x: object,
    channels: int,
    *,
    locate: Locate,
    reader: int | None = None,
    stream: object = None,
) -> Source:
    """Where a batch (N, C, H, W) is. Device memory is used in place; no value is read here.

    A numpy array, or DLPack on the host, is treated as ``as_images`` does. Device memory comes by
    DLPack (torch, cupy, jax, cuda.core) or else by ``__cuda_array_interface__`` (numba, pycuda);
    it must be C-contiguous, and read-only memory will do.

    What the producer still computes is waited for. By DLPack it orders its own work before
    ``reader``. An interface of version 2, or one whose stream is None (pycuda's always is), tells
    nothing: then the work in ``stream`` is waited for, or in the legacy default stream.

    Args:
        x: The caller's batch.
        channels: What C has to be.
        locate: Asks the driver about an address.
        reader: Raw handle of the stream that will read the memory; None: not known yet, then DLPack
            producers are asked to order their work before the legacy default stream.
        stream: The caller's stream that writes ``x`` (see ``stream_handle``). If it is given,
            nothing else is waited for.

    Raises:
        InputError: Wrong type, device, dtype, shape or strides; no elements, a null address, a
            mask, a bit that says that the values are others, or no such stream.
    """
    handle = None if stream is None else stream_handle(stream)
    if isinstance(x, np.ndarray):
        return _on_host(as_images(x, channels), handle)
    try:
        device = dlpack_device(x)
    except NO_EXPORT as error:
        raise _unreadable(x, error) from error
    if device is not None and device[0] in _ON_DEVICE:
        return _from_dlpack(x, channels, reader, handle)
    if device is None and hasattr(x, "__cuda_array_interface__"):
        return _from_interface(x, channels, locate, handle)
    return _on_host(as_images(x, channels), handle)


def device_of(x: object) -> int | None:
    """Ordinal of the device that a DLPack object is on; None if it is on the host or cannot say."""
    try:
        device = None if isinstance(x, np.ndarray) else dlpack_device(x)
    except NO_EXPORT:
        return None  # as_source says why
    return device[1] if device is not None and device[0] in _ON_DEVICE else None


def stream_handle(stream: object) -> int:
    """The raw handle (cudaStream_t) of a stream of any library. The stream stays the caller's.

    Raises:
        InputError: It is no stream; the message lists what is.
    """
    if isinstance(stream, bool):
        _refuse_stream(stream)
    protocol = getattr(stream, "__cuda_stream__", None)
    if callable(protocol):
        answer = protocol()
        if not isinstance(answer, tuple) or len(answer) != 2 or answer[0] != 0:
            raise InputError(
                f"stream: got {answer!r} from {type(stream).__name__}.__cuda_stream__(), expected "
                "(0, handle). Pass the handle itself, an integer."
            )
        return check_stream(answer[1])
    for name in ("cuda_stream", "ptr", "handle"):
        if hasattr(stream, name):
            return check_stream(_integer(stream, getattr(stream, name)))
    return check_stream(_integer(stream, stream))


def _integer(stream: object, value: Any) -> int:
    kind = type(value)
    if hasattr(kind, "__index__"):
        return operator.index(value)
    if hasattr(kind, "__int__") and not hasattr(kind, "__float__"):
        return int(value)  # a handle type, such as cuda.bindings' CUstream
    _refuse_stream(stream)


def _refuse_stream(stream: object) -> NoReturn:
    raise InputError(
        f"stream: got a {type(stream).__name__}, expected {_ACCEPTED_STREAMS}. "
        "Pass the stream's handle."
    )


def _on_host(images: Images, stream: int | None) -> Source:
    batch, _, height, width = images.shape
    return Source(
        address=address_of(images),
        shape=(batch, height, width),
        device=None,
        stream=stream,
        owner=images,
    )


def _from_dlpack(x: Any, channels: int, reader: int | None, stream: int | None) -> Source:
    consumer = _NO_SYNC if stream is not None else (reader or LEGACY_DEFAULT_STREAM)
    refuse_bits(x)
    try:
        try:
            capsule = x.__dlpack__(stream=consumer, max_version=dlpack.VERSION)
        except TypeError:  # a producer from before the versions
            capsule = x.__dlpack__(stream=consumer)
    except NO_EXPORT as error:
        raise _unreadable(x, error) from error
    tensor = dlpack.read_capsule(capsule)
    if tensor.dtype != (dlpack.FLOAT, 32, 1):
        code, bits, lanes = tensor.dtype
        raise InputError(
            f"input: got DLPack dtype code {code}, {bits} bits, {lanes} lane(s), expected float32 "
            "(code 2, 32 bits, 1 lane). Convert it, for example x.float()."
        )
    if tensor.device[0] not in _ON_DEVICE:
        raise InputError(
            f"input: got memory of DLPack device type {tensor.device[0]}, expected "
            f"{dlpack.CUDA}, which its __dlpack_device__ named. Copy it: x.clone()."
        )
    shape = _check_layout(tensor.shape, tensor.strides, channels, itemsize=1)
    waits = LEGACY_DEFAULT_STREAM if stream is None and reader is None else stream
    return Source(
        address=check_address("input", tensor.address),
        shape=shape,
        device=tensor.device[1],
        stream=waits,
        owner=tensor.owner,
    )


def _from_interface(x: Any, channels: int, locate: Locate, stream: int | None) -> Source:
    """Read ``__cuda_array_interface__``, version 2 or 3.

    Source: the CUDA Array Interface, version 3 (numba's documentation).
    """
    try:
        about = dict(x.__cuda_array_interface__)
        version, typestr = about["version"], about["typestr"]
        shape, (address, _) = tuple(map(operator.index, about["shape"])), about["data"]
        strides = about.get("strides")
        strides = None if strides is None else tuple(map(operator.index, strides))
    except (*NO_EXPORT, KeyError) as error:
        raise _unreadable(x, error) from error
    if version not in (2, 3):
        raise InputError(
            f"input: got __cuda_array_interface__ version {version!r}, expected 2 or 3. "
            "Update the library that made the array."
        )
    if typestr != "<f4":
        raise InputError(
            f"input: got dtype {typestr}, expected <f4 (float32). Convert it with "
            "x.astype(np.float32)."
        )
    if about.get("mask") is not None:
        raise InputError("input: got a masked array, expected plain values. Fill the mask first.")
    shape3 = _check_layout(shape, strides, channels, itemsize=4)
    address = check_address("input", address)
    if stream is None:
        named = about.get("stream") if version == 3 else None
        if named == 0:
            raise InputError(
                "input: got stream 0 in __cuda_array_interface__, which leaves open which default "
                "stream it is; expected 1 (legacy), 2 (per thread) or a handle."
            )
        stream = LEGACY_DEFAULT_STREAM if named is None else check_stream(named)
    ordinal, _ = locate(address)
    if ordinal is None:
        raise InputError(
            f"input: got address {address:#x} from __cuda_array_interface__, which is memory of no "
            "CUDA device in this process. Make the array in this process."
        )
    return Source(address=address, shape=shape3, device=ordinal, stream=stream, owner=x)


def _check_layout(
    shape: tuple[int, ...], strides: tuple[int, ...] | None, channels: int, *, itemsize: int
) -> tuple[int, int, int]:
    """(N, H, W) of (N, C, H, W), whose strides count ``itemsize`` for one element."""
    if len(shape) != 4 or shape[1] != channels:
        raise InputError(
            f"input: got shape {shape}, expected (N, {channels}, H, W). "
            "Images stand channels first, with a batch axis: x[None]."
        )
    if not all(extent > 0 for extent in shape):
        raise InputError(f"input: got shape {shape}, expected one with elements.")
    if strides is not None:
        dense, dims = itemsize, zip(reversed(shape), reversed(strides), strict=False)
        for extent, stride in dims:
            if extent > 1 and stride != dense:
                raise InputError(
                    f"input: got strides {strides} of shape {shape}, expected "
                    "C-contiguous. Make it so, for example x.contiguous()."
                )
            dense *= extent
    return shape[0], shape[2], shape[3]


def _unreadable(x: object, error: Exception) -> InputError:
    why = str(error).rstrip(".")
    return InputError(
        f"input: cannot read this {type(x).__name__}: {why}. Expected dense float32 memory."
    )
