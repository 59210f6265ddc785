"""Time as the service sees it: one clock for all deadlines, which tests replace by their own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, Protocol


class Timer(Protocol):
    """A call that is still to come."""

    def cancel(self) -> object:
        """Do not make the call. Idempotent."""


class Clock(Protocol):
    """Seconds since some moment, and calls at a given time."""

    def now(self) -> float:
        """The time. From any thread."""
        ...

    def call_at(self, when_s: float, callback: Callable[..., Any], *args: Any) -> Timer:
        """Call back on the event loop at a time; at once if it has passed."""
        ...


class LoopClock:
    """``time.perf_counter``, in which shells say when a request came, and the loop's own timers."""

    def __init__(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self._loop = loop or asyncio.get_running_loop()
        self.now = time.perf_counter

    def call_at(self, when_s: float, callback: Callable[..., Any], *args: Any) -> Timer:
        """See ``Clock``."""
        return self._loop.call_later(max(0.0, when_s - self.now()), callback, *args)
