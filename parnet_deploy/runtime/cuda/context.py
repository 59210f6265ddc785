"""The contexts in which CUDA calls are made. What was current before a call is current after it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from cuda.bindings import driver

from ...errors import BackendError, DeviceLostError
from .driver import ask, check_ordinal, error_of, is_sticky, translate

Function = Callable[..., Any]
"""A function of cuda.bindings: its result is a tuple that begins with the status."""

_current = driver.cuCtxGetCurrent


class _Inside(threading.local):
    """The context whose guard this thread is in, so that calls there need not ask the driver."""

    context: CudaContext | None = None


_inside = _Inside()
_push, _pop = driver.cuCtxPushCurrent, driver.cuCtxPopCurrent
_NOT_READY = 600


class Health:
    """What the contexts of one device share: whether the device is lost, and the message."""

    __slots__ = ("lost",)

    def __init__(self) -> None:
        self.lost: str | None = None


class CudaContext:
    """A context of one device. Thread-safe.

    Owns: a primary context is retained by ``open_primary`` until ``release``; one of somebody else
    (``foreign``) stays theirs.
    """

    __slots__ = ("_held", "foreign", "handle", "health", "number", "ordinal", "raw")

    def __init__(
        self, ordinal: int, raw: Any, health: Health, *, foreign: bool, number: int = 0
    ) -> None:
        self.ordinal, self.raw, self.health, self.foreign = ordinal, raw, health, foreign
        self.number = number  # unique id of a foreign one
        self.handle = int(raw)
        self._held = not foreign

    @classmethod
    def open_primary(cls, ordinal: int) -> CudaContext:
        """Retain the primary context of a device, which PyTorch and the CUDA runtime use too.

        Raises:
            DeviceUnavailableError: There is no driver, no such device, or it admits nobody.
        """
        check_ordinal(ordinal)
        raw = ask(driver.cuDevicePrimaryCtxRetain, ordinal, device=ordinal)
        return cls(ordinal, raw, Health(), foreign=False)

    def call(self, function: Function, *arguments: Any) -> Any:
        """Make one call in this context; returns what it gives beside the status.

        Where this context is current already nothing is pushed: inside its guard that is known,
        elsewhere it costs one cuCtxGetCurrent to see.

        Raises:
            DeviceLostError: The device is lost, by this call or since an earlier one.
            BackendError: What ``error_of`` makes of the status.
        """
        if self.health.lost is not None:
            raise DeviceLostError(self.health.lost, self.ordinal)
        try:
            if _inside.context is self:
                result = function(*arguments)
            else:
                result = self._call_outside(function, arguments)
        except (RuntimeError, ValueError) as error:
            raise translate(error, function.__name__) from error
        if result[0]:
            raise self.failed(function.__name__, result[0])
        return result[-1]

    def ready(self, query: Function, handle: Any) -> bool:
        """What cuEventQuery and cuStreamQuery say, where "not yet" is no error."""
        if self.health.lost is not None:
            raise DeviceLostError(self.health.lost, self.ordinal)
        status = self._call_from_elsewhere(query, (handle,))[0]
        if status and int(status) != _NOT_READY:
            raise self.failed(query.__name__, status)
        return not status

    def free(self, function: Function, *arguments: Any) -> None:
        """Make a call that frees something. On a lost device it may answer what it likes."""
        try:
            status = self._call_from_elsewhere(function, arguments)[0]
        except BackendError:  # it cannot be made current; graphs are freed without it
            status = function(*arguments)[0]
        if status:
            error = self.failed(function.__name__, status)
            if self.health.lost is None:
                raise error

    def failed(self, call: str, status: Any) -> BackendError:
        """The error for a status; remembers a device that is lost."""
        error = error_of(status, call, self.ordinal)
        if is_sticky(status) and self.health.lost is None:
            self.health.lost = str(error)
        return error

    def guard(self) -> CudaGuard:
        """A ``with`` in which this context is current."""
        return CudaGuard(self)

    def release(self) -> None:
        """Give the primary context back. Idempotent."""
        if self._held:
            self._held = False
            status = driver.cuDevicePrimaryCtxRelease(self.ordinal)[0]
            if status:
                error = self.failed("cuDevicePrimaryCtxRelease", status)
                if self.health.lost is None:
                    raise error

    def _call_outside(self, function: Function, arguments: tuple[Any, ...]) -> Any:
        status, current = _current()
        if status:
            return self._call_from_elsewhere(function, arguments)
        if int(current) == self.handle:
            return function(*arguments)
        return self._call_pushed(function, arguments)

    def _call_pushed(self, function: Function, arguments: tuple[Any, ...]) -> Any:
        """Where another context is known to be current. Pops even if a signal handler raises."""
        pushed = False
        try:
            status = _push(self.raw)[0]
            pushed = not status
            if status:
                raise self.failed("cuCtxPushCurrent", status)
            return function(*arguments)
        finally:
            status, current = _current()
            if pushed if status else int(current) == self.handle:
                _pop()

    def _call_from_elsewhere(self, function: Function, arguments: tuple[Any, ...]) -> Any:
        with CudaGuard(self):
            return function(*arguments)


class CudaGuard:
    """Makes a context current and restores what was before. One for each ``with``."""

    __slots__ = ("_before", "_context", "_outer")

    def __init__(self, context: CudaContext) -> None:
        self._context = context
        self._before = context.handle
        self._outer: CudaContext | None = None

    def __enter__(self) -> None:
        context = self._context
        status, current = _current()
        before = -1 if status else int(current or 0)  # not known: push, and pop again
        if before != context.handle:
            status = _push(context.raw)[0]
            if status:
                raise context.failed("cuCtxPushCurrent", status)
            self._before = before
        try:
            self._outer = _inside.context
            _inside.context = context
        except BaseException:  # a signal handler's: the caller's context is what it was
            self.__exit__()
            raise

    def __exit__(self, *error: object) -> None:
        try:
            _inside.context = self._outer
        finally:
            self._pop_if_pushed()

    def _pop_if_pushed(self) -> None:
        if self._before != self._context.handle:
            _pop()


class ClosedContext:
    """Stands where the context was in what is closed: a raw handle must not be used again."""

    __slots__ = ("_what", "ordinal")

    def __init__(self, what: str, ordinal: int) -> None:
        self._what, self.ordinal = what, ordinal

    def call(self, function: Function, *arguments: Any) -> Any:
        """Refuse."""
        raise BackendError(f"{self._what} of device {self.ordinal}: it is closed. Make a new one.")
