"""The messages of calls: each within a time, and bounded over all connections."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc.aio

from ..protocol.refusal import RefusedError
from ..security.budget import Budget
from ..security.limits import Limits

WINDOW_BYTES = 65_535
"""What HTTP/2 lets a call send before its message is asked for; the listener keeps gRPC to it."""


class Receiver:
    """Asks for messages, of so many calls at once that they fit into ``all_bodies_bytes``.

    gRPC hands over whole messages only, so a call whose message is being received counts as the
    largest one. Further calls wait for their turn, and flow control holds their clients back at
    ``WINDOW_BYTES``. What has come is counted by its size until it is answered.
    """

    def __init__(self, limits: Limits) -> None:
        most = limits.all_bodies_bytes
        self._message_s, self._most_streams = limits.message_s, limits.streams
        self._turns = asyncio.Semaphore(max(1, most // limits.body_bytes))
        self._most_waiting = max(1, most // WINDOW_BYTES)
        self._waiting = self._streams = 0
        self._budget = Budget(max(most, limits.body_bytes))  # one of the largest always fits

    async def receive(self, context: Any) -> bytes:
        """Read the message of a call that has one. The time is from the call's beginning.

        Raises:
            RefusedError: It took longer, the client ended the call without one, or too many other
                calls are being received.
        """
        if self._waiting >= self._most_waiting:
            raise _busy(f"{self._waiting} that wait for others to be received")
        task, late, has_turn = asyncio.current_task(), False, False

        def on_late() -> None:
            nonlocal late
            late = True
            if task is not None:
                task.cancel()

        timer = asyncio.get_running_loop().call_later(self._message_s, on_late)
        try:
            await self._turn()
            has_turn = True
            content: Any = await context.read()
        except asyncio.CancelledError:
            if not late:
                raise  # the client, or the server, ended the call
            if not has_turn:
                text = f"others that were being received for {self._message_s:g} s"
                raise _busy(text) from None
            text = f"message: got no whole one in {self._message_s:g} s. Send it faster."
            raise RefusedError("too-slow", text) from None
        finally:
            timer.cancel()
            if has_turn:
                self._turns.release()
        if content is grpc.aio.EOF:
            raise RefusedError("invalid", "message: got none, expected one. Send one message.")
        whole: bytes = content
        return whole

    @contextmanager
    def keeping(self, count: int) -> Iterator[None]:
        """Count the bytes of a message until it is answered.

        Raises:
            RefusedError: All messages together would be too large.
        """
        self._budget.take(count)
        try:
            yield
        finally:
            self._budget.give_back(count)

    @contextmanager
    def stream(self) -> Iterator[None]:
        """Count a stream while it is open: its next message may begin at any time.

        Raises:
            RefusedError: Too many are open.
        """
        if self._streams >= self._most_streams:
            raise RefusedError(
                "busy",
                f"streams: got {self._streams + 1} of all clients together, expected at most "
                f"{self._most_streams}. Try again later, or ask by ModelInfer.",
            )
        self._streams += 1
        try:
            yield
        finally:
            self._streams -= 1

    async def _turn(self) -> None:
        self._waiting += 1
        try:
            await self._turns.acquire()
        finally:
            self._waiting -= 1


def _busy(what: str) -> RefusedError:
    return RefusedError("busy", f"calls: got {what}, expected a free turn. Try again later.")
