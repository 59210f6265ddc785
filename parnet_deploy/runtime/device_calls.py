"""Calls with images that are on a GPU already, and logits that stay there."""

from __future__ import annotations

from functools import partial

import numpy as np

from ..errors import InputError
from .arrays.device_array import LEGACY_DEFAULT_STREAM, DeviceArray
from .arrays.device_inputs import as_source, stream_handle
from .arrays.inputs import address_of, as_images
from .backend import device_family
from .opened import Logits, Opened


def answer_array(opened: Opened, x: object, stream: object) -> Logits:
    """See ``Runtime.__call__``: an array of any library, on the host or on a GPU."""
    channels, executor = opened.spec.in_channels, opened.executor
    if device_family(opened.plan.backend) != "cuda":
        return opened.answer(as_images(x, channels))
    source = as_source(x, channels, locate=executor.locate, stream=stream)
    if source.device is None:
        return opened.answer(as_images(x, channels))
    logits = np.empty((source.shape[0], opened.spec.num_classes), dtype=np.float32)
    behind = LEGACY_DEFAULT_STREAM if source.stream is None else source.stream
    executor.run_on(source.address, address_of(logits), source.shape, behind)
    return logits


def enqueue_array(opened: Opened, x: object, stream: object) -> DeviceArray:
    """See ``Runtime.enqueue``."""
    handle, executor = stream_handle(stream), opened.executor
    written = None if hasattr(x, "__dlpack__") else handle
    source = as_source(
        x, opened.spec.in_channels, locate=executor.locate, reader=handle, stream=written
    )
    if source.device is None:
        raise InputError(
            "input: got host memory, expected an array on a GPU. Call the runtime itself: "
            "runtime(x)."
        )
    executor.check(source.shape)
    lease = opened.outputs.take(handle, source)
    executor.launch(source.address, lease.buffer.address, source.shape, handle)
    return DeviceArray(
        address=lease.buffer.address,
        shape=(source.shape[0], opened.spec.num_classes),
        device=lease.buffer.device,
        stream=handle,
        owner=lease,
        order=partial(executor.order, handle),
    )


def refuse_device_memory(opened: Opened, **addresses: int) -> None:
    """Refuse device memory where the host's is expected: to copy it there would crash.

    Raises:
        InputError: An address is of a device.
    """
    for name, address in addresses.items():
        device, on_device = opened.executor.locate(address)
        if on_device:
            raise InputError(
                f"{name}: got memory of device {device}, expected host memory where no stream is "
                "given. Pass the stream in which it is used."
            )
