"""gRPC calls as Ray hands them to a replica, for the handlers of ``serve.rpc``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, NoReturn

from ..protocol.messages import SERVICE
from ..protocol.refusal import RefusedError
from ..rpc.listener import Handlers
from ..rpc.refuse import abort


@dataclass(frozen=True, slots=True)
class Serialized:
    """An answer that is bytes already: Ray asks every answer for this method."""

    content: bytes

    def SerializeToString(self) -> bytes:  # noqa: N802 - protobuf's name
        """The bytes."""
        return self.content


class AbortedError(Exception):
    """The call has its status; nothing more is to be done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallDetails:
    """What gRPC tells a generic handler of a call."""

    method: str
    invocation_metadata: Any


class Call:
    """What the handlers need of a call's context, over Ray's ``RayServegRPCContext``.

    Args:
        context: Ray's; it travels back to the proxy, which sets what stands in it.
        replica: Who answers, for ``x-parnet-replica``.
        content: The message of a call that has one, which Ray has read already.
    """

    def __init__(self, context: Any, replica: str, content: bytes = b"") -> None:
        self._context, self._replica, self._content = context, replica, content
        self._written: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._free = asyncio.Semaphore(1)
        self.set_trailing_metadata(())

    def invocation_metadata(self) -> Any:
        """What the client sent along."""
        return self._context.invocation_metadata()

    def peer(self) -> str:
        """Who asked Ray's proxy."""
        found: str = self._context.peer()
        return found

    def time_remaining(self) -> None:
        """Ray does not pass the deadline on; its proxy cancels the call when it is over."""
        return None

    def set_trailing_metadata(self, metadata: Any) -> None:
        """What the client gets with the status."""
        self._context.set_trailing_metadata([*metadata, ("x-parnet-replica", self._replica)])

    async def abort(self, code: Any, details: str, metadata: Any = ()) -> NoReturn:
        """End the call. No error of Ray's: that would be logged as a crash and lose metadata."""
        self._context.set_code(code)
        self._context.set_details(details)
        self.set_trailing_metadata(metadata)
        raise AbortedError

    async def read(self) -> bytes:
        """The message."""
        return self._content

    async def write(self, content: bytes) -> None:
        """Send one answer of a stream, once the one before is gone."""
        await self._free.acquire()
        self._written.put_nowait(content)

    def end(self) -> None:
        """No more answers."""
        self._written.put_nowait(None)

    async def written(self) -> AsyncIterator[bytes]:
        """What is written, until the end."""
        while (content := await self._written.get()) is not None:
            self._free.release()
            yield content


class RayCalls:
    """Answers the calls that Ray passes on, by the handlers of the gRPC wire.

    Args:
        handlers: Of ``serve.rpc``; they hold the token.
        body_bytes: The largest message; Ray's proxy takes any.
        replica: Who answers.
    """

    def __init__(self, handlers: Handlers, *, body_bytes: int, replica: str) -> None:
        self._handlers, self._body_bytes, self._replica = handlers, body_bytes, replica

    async def unary(self, method: str, content: bytes, context: Any) -> Serialized:
        """One request, one answer; of a refused one the status is in the context."""
        call = Call(context, self._replica, content)
        handler = self._find(method, call)
        try:
            if handler.stream_unary is None:  # the one that refuses
                await handler.stream_stream(None, call)
            await self._check_size(content, call)
            return Serialized(await handler.stream_unary(None, call))
        except AbortedError:
            return Serialized(b"")

    async def stream(
        self, method: str, requests: AsyncIterator[bytes], context: Any
    ) -> AsyncIterator[Serialized]:
        """Any number of requests and answers."""
        call = Call(context, self._replica)
        handler = self._find(method, call)

        async def answer() -> None:
            try:
                await handler.stream_stream(self._checked(requests, call), call)
            except AbortedError:
                pass
            finally:
                call.end()

        task = asyncio.create_task(answer())
        try:
            async for content in call.written():
                yield Serialized(content)
            await task
        finally:
            task.cancel()

    def _find(self, method: str, call: Call) -> Any:
        details = CallDetails(method=method, invocation_metadata=call.invocation_metadata())
        return self._handlers.service(details)

    async def _checked(self, requests: AsyncIterator[bytes], call: Call) -> AsyncIterator[bytes]:
        async for content in requests:
            await self._check_size(content, call)
            yield content

    async def _check_size(self, content: bytes, call: Call) -> None:
        if len(content) > self._body_bytes:
            text = f"message: got {len(content)} bytes, expected at most {self._body_bytes}."
            await abort(call, RefusedError("too-large", f"{text} Send fewer images at a time."))


def method_path(rpc: str) -> str:
    """An rpc of the protocol as gRPC calls it."""
    return f"/{SERVICE}/{rpc}"
