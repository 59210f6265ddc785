"""Every so often something is to be done, on the service's clock, and never twice at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from ..clock import Clock, Timer


class Proving:
    """Calls ``prove`` every so often, counted from the end of the call before.

    Args:
        prove: What to do. It raises nothing.
        every_s: Seconds between; 0: never.
        clock: Where they are counted.

    Owns: the call in progress, until ``stop``.
    """

    def __init__(
        self, prove: Callable[[], Awaitable[None]], *, every_s: float, clock: Clock
    ) -> None:
        self._prove, self._every_s, self._clock = prove, every_s, clock
        self._timer: Timer | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to count."""
        if self._every_s:
            self._timer = self._clock.call_at(self._clock.now() + self._every_s, self._begin)

    def stop(self) -> None:
        """No more. What runs in a thread goes on there, and its end is nobody's business."""
        for one in (self._timer, self._task):
            if one is not None:
                one.cancel()

    def _begin(self) -> None:
        self._task = asyncio.ensure_future(self._run())

    async def _run(self) -> None:
        await self._prove()
        self.start()
