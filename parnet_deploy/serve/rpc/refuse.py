"""Refusals as gRPC statuses."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn

import grpc
import grpc.aio

from ..protocol.refusal import RefusedError

Metadata = tuple[tuple[str, str], ...]

_LONGEST_DETAILS = 1000  # it travels in a header, and clients bound those

_STATUS = {code.name: code for code in grpc.StatusCode}


async def abort(context: Any, error: RefusedError, metadata: Metadata = ()) -> NoReturn:
    """End a call with what was refused and why; ``retry-after`` (s) says when to come back."""
    more: Metadata = metadata
    if error.code.retry:
        more = (*metadata, ("retry-after", str(max(1, math.ceil(error.retry_after_s or 0)))))
    await end(context, _STATUS[error.code.grpc], details(error), more)


async def end(context: Any, status: grpc.StatusCode, text: str, metadata: Metadata) -> NoReturn:
    """End a call with a status.

    Raises:
        asyncio.CancelledError: It was over already, as where gRPC itself refuses a message that is
            too large: nobody can be told, and it is no error of ours.
    """
    try:
        await context.abort(status, text, metadata)
    except grpc.aio.InternalError:
        raise asyncio.CancelledError from None
    raise AssertionError("abort returned")


def details(error: RefusedError) -> str:
    """The message, cut if a client made it long."""
    text = str(error)
    return text if len(text) <= _LONGEST_DETAILS else text[: _LONGEST_DETAILS - 3] + "..."


def refusing(error: RefusedError) -> Any:
    """A handler that refuses a call of any kind without reading what it sends."""

    async def refuse(requests: Any, context: Any) -> None:
        await abort(context, error)

    behavior: Callable[[Any, Any], Awaitable[None]] = refuse
    return grpc.stream_stream_rpc_method_handler(behavior)
