"""How a call is ended, also one that is over before it can be told."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import grpc.aio
import pytest

from parnet_deploy.serve.protocol.refusal import RefusedError
from parnet_deploy.serve.rpc.refuse import abort, end


class EndedError(Exception):
    """Stands for what gRPC raises to leave a handler."""


class Context:
    """Stands for the context of a call."""

    def __init__(self, raised: Exception) -> None:
        self.raised, self.told = raised, []

    async def abort(self, *told: Any) -> None:
        self.told.append(told)
        raise self.raised


@pytest.mark.parametrize("over", [False, True])
def test_a_call_that_is_over_is_left_as_a_cancelled_one(over: bool) -> None:
    context = Context(grpc.aio.InternalError() if over else EndedError())
    error = RefusedError("invalid", "message: got none, expected one. Send one message.")
    with pytest.raises(asyncio.CancelledError if over else EndedError):
        asyncio.run(abort(context, error))
    assert context.told == [(grpc.StatusCode.INVALID_ARGUMENT, str(error), ())]


def test_nothing_else_is_hidden() -> None:
    context = Context(RuntimeError("ours"))
    with pytest.raises(RuntimeError, match="ours"):
        asyncio.run(end(context, grpc.StatusCode.INTERNAL, "text", ()))
