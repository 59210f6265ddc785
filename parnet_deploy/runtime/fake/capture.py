"""Work captured from simulated streams, to be enqueued again as one graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from ...errors import ExecutionError
from .simulator import Queue

Call = Callable[[Any], None]
"""What was enqueued on a stream, to be enqueued again on this one."""


class QueueOwner(Protocol):
    """A simulated stream."""

    queue: Queue


class FakeGraph:
    """See ``device.Graph``. Like CUDA, it refuses work that it cannot hold together.

    Refused are a wait for work that is not captured, a stream that does not fork from the origin,
    and one that is not joined at the end. ``joins[q]`` says up to which of its calls every other
    queue is ordered before what comes next in q.
    """

    def __init__(self, origin: QueueOwner) -> None:
        self._origin = origin.queue
        self._calls: list[tuple[QueueOwner, Call]] = []
        self._done: dict[int, int] = {id(origin.queue): 0}  # calls in each queue that took part
        self._joins: dict[int, dict[int, int]] = {id(origin.queue): {}}
        self._events: dict[int, dict[int, int]] = {}
        self._closed = False

    def add(
        self, call: Call, stream: QueueOwner, recorded: object | None, waited: object | None
    ) -> None:
        """Remember a call on a stream, and the event that it records or waits for.

        Raises:
            ExecutionError: It depends on, or belongs to, work that is not captured.
        """
        here = id(stream.queue)
        if waited is not None:
            if id(waited) not in self._events:
                raise ExecutionError("capture: a wait for an event that was recorded outside it.")
            joins = self._joins.setdefault(here, {})
            for queue, position in self._events[id(waited)].items():
                joins[queue] = max(joins.get(queue, 0), position)
            self._done.setdefault(here, 0)
        if here not in self._done:
            raise ExecutionError("capture: work in a stream that does not fork from its origin.")
        self._done[here] += 1
        if recorded is not None:
            self._events[id(recorded)] = {**self._joins[here], here: self._done[here]}
        self._calls.append((stream, call))

    def check_joined(self) -> None:
        """Refuse a graph that ends while a forked stream still has work.

        Raises:
            ExecutionError: The origin does not wait for all of it.
        """
        origin = id(self._origin)
        for queue, done in self._done.items():
            if queue != origin and self._joins[origin].get(queue, 0) < done:
                raise ExecutionError("capture: a forked stream does not join its origin again.")

    def launch(self, stream: QueueOwner) -> None:
        """See ``device.Graph``."""
        if self._closed:
            raise ExecutionError("graph: it is closed.")
        for captured, call in self._calls:
            call(stream if captured.queue is self._origin else captured)

    def close(self) -> None:
        """See ``device.Graph``."""
        self._closed = True
