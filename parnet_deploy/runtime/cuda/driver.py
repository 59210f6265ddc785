"""What the CUDA driver answers, as errors of ours; and what it says of devices and pointers.

Source of the classes: the comments of CUresult in cuda.h (CUDA 13.0).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from cuda.bindings import driver

from ...errors import (
    BackendError,
    DeviceLostError,
    DeviceUnavailableError,
    ExecutionError,
    OutOfMemoryError,
)

Kind = Literal["memory", "capture", "lost", "absent", "run"]

KINDS: dict[int, Kind] = {
    2: "memory",  # OUT_OF_MEMORY
    3: "absent",  # NOT_INITIALIZED
    4: "lost",  # DEINITIALIZED: the driver shuts down with the process
    34: "absent",  # STUB_LIBRARY
    46: "absent",  # DEVICE_UNAVAILABLE: prohibited, or exclusive and taken
    100: "absent",  # NO_DEVICE
    101: "absent",  # INVALID_DEVICE
    102: "absent",  # DEVICE_NOT_LICENSED
    214: "lost",  # ECC_UNCORRECTABLE
    220: "lost",  # NVLINK_UNCORRECTABLE
    226: "lost",  # CONTAINED
    700: "lost",  # ILLEGAL_ADDRESS
    701: "run",  # LAUNCH_OUT_OF_RESOURCES
    702: "lost",  # LAUNCH_TIMEOUT
    709: "lost",  # CONTEXT_IS_DESTROYED: somebody reset the device under us
    710: "lost",  # ASSERT
    714: "lost",  # HARDWARE_STACK_ERROR
    715: "lost",  # ILLEGAL_INSTRUCTION
    716: "lost",  # MISALIGNED_ADDRESS
    717: "lost",  # INVALID_ADDRESS_SPACE
    718: "lost",  # INVALID_PC
    719: "lost",  # LAUNCH_FAILED
    720: "run",  # COOPERATIVE_LAUNCH_TOO_LARGE
    721: "lost",  # TENSOR_MEMORY_LEAK
    802: "absent",  # SYSTEM_NOT_READY
    803: "absent",  # SYSTEM_DRIVER_MISMATCH
    804: "absent",  # COMPAT_NOT_SUPPORTED_ON_DEVICE
    805: "absent",  # MPS_CONNECTION_FAILED
    806: "lost",  # MPS_RPC_FAILURE
    807: "absent",  # MPS_SERVER_NOT_READY
    808: "absent",  # MPS_MAX_CLIENTS_REACHED
    809: "absent",  # MPS_MAX_CONNECTIONS_REACHED
    810: "lost",  # MPS_CLIENT_TERMINATED
    **dict.fromkeys(range(900, 909), "capture"),  # STREAM_CAPTURE_UNSUPPORTED .. _WRONG_THREAD
    909: "run",  # TIMEOUT
    911: "lost",  # EXTERNAL_DEVICE
    999: "lost",  # UNKNOWN
}
"""What follows from an error. One that is not listed is a fault of the call: BackendError."""

_NEXT_STEPS: dict[Kind, str] = {
    "memory": "Lower the batch, the image size or the slots, or free memory on the device.",
    "capture": "Run it without a graph.",
    "lost": "Start the process again; work on this device cannot go on in this one.",
    "absent": "Run: parnet-deploy doctor. nvidia-smi shows which devices there are.",
    "run": "Try again.",
}
_STEPS: dict[int, str] = {
    3: "A process that was forked from one that uses CUDA cannot use it: fork before a runtime is "
    "opened on a GPU, or start processes by spawn.",
}
"""Where the code itself says more than what follows from it."""

_OTHER_STEP = "This is a fault of the program; report it with this message."
_PROHIBITED = 2  # CU_COMPUTEMODE_PROHIBITED


class CaptureFailed(BackendError):  # noqa: N818, it never leaves the device layer
    """What was enqueued cannot be part of a graph. ``capture`` turns it into a reason."""


class PointerFacts(NamedTuple):
    """Where an address points. ``device`` is None for memory that CUDA does not know."""

    device: int | None
    on_device: bool


_CLASSES: dict[Kind, type[BackendError]] = {
    "memory": OutOfMemoryError,
    "capture": CaptureFailed,
    "absent": DeviceUnavailableError,
    "run": ExecutionError,
}


def error_of(status: Any, call: str, device: int | None = None) -> BackendError:
    """The error of ours for what a driver call returned.

    Args:
        status: The CUresult, which is not success.
        call: Name of the driver's function.
        device: Ordinal of the device, where one was concerned.
    """
    kind = KINDS.get(int(status))
    where = "" if device is None else f" on device {device}"
    step = _OTHER_STEP if kind is None else _STEPS.get(int(status), _NEXT_STEPS[kind])
    message = f"{call}{where}: got {_describe(status)}, expected success. {step}"
    if kind == "lost":
        return DeviceLostError(message, device)
    return (BackendError if kind is None else _CLASSES[kind])(message)


def is_sticky(status: Any) -> bool:
    """Whether no later call on the device can succeed."""
    return KINDS.get(int(status)) == "lost"


def ask(function: Callable[..., Any], *arguments: Any, device: int | None = None) -> Any:
    """Call the driver where speed does not matter; returns what it gives beside the status.

    Raises:
        DeviceUnavailableError: There is no driver.
        BackendError: What ``error_of`` makes of the status.
    """
    try:
        result = function(*arguments)
    except (RuntimeError, ValueError) as error:
        raise translate(error, function.__name__) from error
    if result[0]:
        raise error_of(result[0], function.__name__, device)
    return result[-1]


def translate(error: Exception, call: str) -> BackendError:
    """What cuda.bindings itself raised: no driver, one without this function, an unknown code."""
    if type(error).__name__ == "FunctionNotFoundError":
        return BackendError(
            f"{call}: the NVIDIA driver does not have it, expected one for CUDA 12.0 or later. "
            "Update the driver."
        )
    if isinstance(error, ValueError):
        return BackendError(
            f"{call}: got an answer that cuda.bindings does not know ({error}). "
            "Update it: pip install --upgrade cuda-bindings."
        )
    return DeviceUnavailableError(
        f"CUDA driver: libcuda.so.1 cannot be loaded ({str(error).splitlines()[0]}). Install "
        "NVIDIA's driver, and in a container start it with --gpus all."
    )


def usable_devices() -> tuple[int, ...]:
    """Ordinals of the devices that admit this process. Starts the driver, makes no context.

    Raises:
        DeviceUnavailableError: No driver, or no device; the message says which.
    """
    ask(driver.cuInit, 0)
    mode = driver.CUdevice_attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_MODE
    return tuple(
        ordinal
        for ordinal in range(ask(driver.cuDeviceGetCount))
        if ask(driver.cuDeviceGetAttribute, mode, ordinal, device=ordinal) != _PROHIBITED
    )


def check_ordinal(ordinal: int) -> None:
    """Refuse a device that is not there, or admits nobody. Starts the driver.

    Raises:
        DeviceUnavailableError: With the devices that there are.
    """
    there = usable_devices()
    if ordinal not in there:
        raise DeviceUnavailableError(
            f"device: got {ordinal}, expected one of {', '.join(map(str, there)) or 'none'}. "
            "nvidia-smi and CUDA_VISIBLE_DEVICES say which devices this process sees."
        )


def pointer_facts(address: int, device: int | None = None) -> PointerFacts:
    """Where memory of a caller is. Needs a current context: ``device`` says whose, for errors."""
    attribute = driver.CUpointer_attribute
    status, kind = driver.cuPointerGetAttribute(attribute.CU_POINTER_ATTRIBUTE_MEMORY_TYPE, address)
    if status == driver.CUresult.CUDA_ERROR_INVALID_VALUE:
        return PointerFacts(None, False)  # the host's own, or nobody's
    if status:
        raise error_of(status, "cuPointerGetAttribute", device)
    ordinal = attribute.CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL
    owner = ask(driver.cuPointerGetAttribute, ordinal, address, device=device)
    return PointerFacts(int(owner), int(kind) == int(driver.CUmemorytype.CU_MEMORYTYPE_DEVICE))


def _describe(status: Any) -> str:
    name = getattr(status, "name", f"code {int(status)}")
    try:
        found, text = driver.cuGetErrorString(status)
    except (RuntimeError, ValueError):
        return str(name)
    return str(name) if found or not text else f"{name} ({_text(text)})"


def _text(value: bytes) -> str:
    return value.partition(b"\0")[0].decode(errors="replace").strip()
