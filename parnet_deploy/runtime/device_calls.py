"""Calls with images that are on a GPU already, and logits that stay there."""

from __future__ import annotations

from contextlib import closing
from functools import partial

import numpy as np

from ..errors import InputError
from .arrays.device_array import DeviceArray
from .arrays.device_inputs import as_source, device_of, stream_handle
from .arrays.inputs import address_of, as_images
from .backend import device_family
from .device import Device, Event
from .opened import Logits, Opened


def answer_array(opened: Opened, x: object, stream: object) -> Logits:
    """See ``Runtime.__call__``: an array of any library, on the host or on a GPU."""
    channels, executor = opened.spec.in_channels, opened.executor
    if device_family(opened.plan.backend) != "cuda":
        return opened.answer(as_images(x, channels))
    device = device_of(x)
    reader = None if device is None else executor.intake(_check_device(opened, device))
    source = as_source(x, channels, locate=executor.locate, reader=reader, stream=stream)
    if source.device is None:
        return opened.answer(as_images(x, channels))
    logits = np.empty((source.shape[0], opened.spec.num_classes), dtype=np.float32)
    behind = reader if source.stream is None else source.stream
    where = _check_device(opened, source.device)
    assert behind is not None  # without a reader a source names a stream
    opened.host.run_on(source.address, address_of(logits), source.shape, behind, where)
    return logits


def run_host(opened: Opened, image: int, logits: int, shape: tuple[int, int, int]) -> None:
    """See ``Runtime.run_into`` without a stream: both addresses are the host's.

    Raises:
        InputError: An address is of a device: to copy it as if it were the host's would crash.
    """
    executor = opened.executor
    if not executor.home.direct:  # else there is no other memory than the host's
        for name, address in (("in_ptr", image), ("out_ptr", logits)):
            device, on_device = executor.locate(address)
            if on_device:
                raise InputError(
                    f"{name}: got memory of device {device}, expected host memory where no stream "
                    "is given. Pass the stream in which it is used."
                )
    opened.host.run(image, logits, shape)


def enqueue_array(opened: Opened, x: object, stream: object) -> DeviceArray:
    """See ``Runtime.enqueue``."""
    handle, executor = stream_handle(stream), opened.executor
    home = executor.home
    here = device_of(x)
    if here not in (None, home.ordinal):
        raise _elsewhere(f"device {here}", f"device {home.ordinal}, which computes the logits")
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
    lease = opened.outputs.take(handle, source, stream)
    executor.launch(source.address, lease.buffer.address, source.shape, handle, lease.event)
    return DeviceArray(
        address=lease.buffer.address,
        shape=(source.shape[0], opened.spec.num_classes),
        device=lease.buffer.device,
        stream=handle,
        owner=lease,
        order=partial(_wait, home, lease.event),
    )


def _wait(home: Device, event: Event, consumer: int) -> None:
    """Let what is enqueued next in a consumer's stream wait for the logits."""
    with closing(home.borrow_stream(consumer)) as theirs:
        theirs.wait(event)


def _check_device(opened: Opened, device: int) -> int:
    """Refuse memory of a device that takes no part: no stream of ours could wait for it."""
    if device not in opened.executor.devices:
        devices = ", ".join(map(str, opened.executor.devices))
        raise _elsewhere(f"device {device}", f"one of the plan's devices ({devices})")
    return device


def _elsewhere(got: str, expected: str) -> InputError:
    return InputError(f"input: got an array on {got}, expected one on {expected}. Copy it there.")
