"""The message of a call that has one, within a time."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc.aio

from ..protocol.refusal import RefusedError


async def receive(context: Any, limit_s: float) -> bytes:
    """Read it. How much of it has come cannot be seen, so the time is for the whole.

    Raises:
        RefusedError: It took longer, or the client ended the call without one.
    """
    task, late = asyncio.current_task(), False

    def on_late() -> None:
        nonlocal late
        late = True
        if task is not None:
            task.cancel()

    timer = asyncio.get_running_loop().call_later(limit_s, on_late)
    try:
        content: Any = await context.read()
    except asyncio.CancelledError:
        if not late:
            raise  # the client, or the server, ended the call
        raise RefusedError(
            "too-slow", f"message: got no whole one in {limit_s:g} s. Send it faster."
        ) from None
    finally:
        timer.cancel()
    if content is grpc.aio.EOF:
        raise RefusedError("invalid", "message: got none, expected one. Send one message.")
    whole: bytes = content
    return whole
