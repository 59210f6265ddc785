"""Work captured from simulated streams, to be enqueued again as one graph."""

from __future__ import annotations

from collections.abc import Callable

from ..errors import ExecutionError
from .simulator import Queue


class Capture:
    """Calls made while capturing. Like CUDA, it refuses to depend on work outside of it."""

    def __init__(self, origin: Queue) -> None:
        self._joined = {id(origin)}
        self._events: set[int] = set()
        self._calls: list[Callable[[], None]] = []

    def add(
        self,
        call: Callable[[], None],
        queue: Queue,
        recorded: object | None,
        waited: object | None,
    ) -> None:
        """Remember a call on a stream, and the event that it records or waits for.

        Raises:
            ExecutionError: It depends on, or belongs to, work that is not captured.
        """
        if waited is not None and id(waited) not in self._events:
            raise ExecutionError("capture: a wait for an event that was recorded outside of it.")
        if waited is not None:
            self._joined.add(id(queue))
        if id(queue) not in self._joined:
            raise ExecutionError("capture: work in a stream that does not fork from its origin.")
        if recorded is not None:
            self._events.add(id(recorded))
        self._calls.append(call)

    def replay(self) -> None:
        """Make the calls again."""
        for call in self._calls:
            call()
