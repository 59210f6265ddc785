"""One call: decoded, asked, answered, written down, and what becomes of errors."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple
from urllib.parse import unquote

import grpc

from ..protocol import messages
from ..protocol.contract import Arrival
from ..protocol.grpc_codec import decode, encode, encode_in_stream, id_of, parse
from ..protocol.refusal import RefusedError
from ..protocol.request import InferResponse
from ..security.limits import Limits
from ..shells.shell import Shell
from .documents import Ask
from .receive import Receiver
from .refuse import Metadata, abort, details, end

Unary = Callable[[Any, Any], Awaitable[bytes]]
"""Of a stream of requests, of which it reads one: gRPC's own unary calls wait for it forever."""

_STREAM = "ModelStreamInfer"


class _Caller(NamedTuple):
    """What the metadata of a call says, and when it came."""

    id: str
    peer: str
    traceparent: str | None
    at_s: float

    def arrival(self, context: Any) -> Arrival:
        return Arrival(wire="grpc", at_s=self.at_s, left_s=context.time_remaining())

    def now(self) -> _Caller:
        """The same for a message that came in the call just now."""
        return self._replace(at_s=time.perf_counter())


class Calls:
    """Makes the handlers' behaviours. They take and give bytes: parsing is ours, so are its errors.

    ``limits``: how long the message of a call may take, how many bytes all of them together may
    have, how many streams may be open, and how many requests of each may wait for their answers.
    """

    def __init__(self, shell: Shell, limits: Limits) -> None:
        self._shell, self._limits = shell, limits
        self.receiver = Receiver(limits)

    def document(self, rpc: str, ask: Ask) -> Unary:
        """Behaviour of an rpc that is answered at once."""
        kind = messages.request_class(rpc)

        async def behavior(requests: Any, context: Any) -> bytes:
            async def answer(content: bytes, caller: _Caller) -> tuple[bytes, None]:
                return ask(self._shell.service, parse(kind, content)).SerializeToString(), None

            return await self._guard(rpc, context, answer)

        return behavior

    async def infer(self, requests: Any, context: Any) -> bytes:
        """Behaviour of ``ModelInfer``."""

        async def answer(content: bytes, caller: _Caller) -> tuple[bytes, InferResponse]:
            request = decode(content)
            arrival = caller.arrival(context)
            response = await self._shell.infer(request, arrival, caller.id, caller.traceparent)
            return encode(response), response

        return await self._guard("ModelInfer", context, answer)

    async def _guard(
        self,
        rpc: str,
        context: Any,
        answer: Callable[[bytes, _Caller], Awaitable[tuple[bytes, InferResponse | None]]],
    ) -> bytes:
        caller = self._caller(context)
        at_s, request_id = caller.at_s, caller.id
        metadata: Metadata = (("x-request-id", request_id),)
        try:
            message = await self.receiver.receive(context)
            caller = caller.now()
            at_s = caller.at_s
            with self.receiver.keeping(len(message)):
                answering = answer(message, caller)
                del message  # it may be large: whoever decodes it decides when it goes
                content, response = await answering
        except RefusedError as error:
            self._shell.refused("grpc", request_id, rpc, error, at_s, peer=caller.peer)
            await abort(context, error, metadata)
        except Exception:
            text = self._shell.broke("grpc", request_id, rpc, at_s, peer=caller.peer)
            await end(context, grpc.StatusCode.INTERNAL, text, metadata)
        context.set_trailing_metadata(metadata)
        timings = None if response is None else response.timings
        self._shell.answered("grpc", request_id, rpc, timings, at_s, peer=caller.peer)
        return content

    async def stream(self, requests: Any, context: Any) -> None:
        """Behaviour of ``ModelStreamInfer``: answers in the order of the requests, as Triton's.

        A request that is refused is answered by its reason and its id, and the stream goes on. No
        more is read while too many wait, so that HTTP/2's flow control holds the client back.
        """
        caller = self._caller(context)
        metadata: Metadata = (("x-request-id", caller.id),)
        try:
            with self.receiver.stream():
                context.set_trailing_metadata(metadata)
                await self._stream(requests, context, caller)
        except RefusedError as error:
            self._shell.refused("grpc", caller.id, _STREAM, error, caller.at_s, peer=caller.peer)
            await abort(context, error, metadata)

    async def _stream(self, requests: Any, context: Any, caller: _Caller) -> None:
        waiting: asyncio.Queue[asyncio.Task[bytes] | None] = asyncio.Queue()
        free = asyncio.Semaphore(self._limits.stream_requests)
        tasks: set[asyncio.Task[bytes]] = set()

        async def write() -> None:
            while (task := await waiting.get()) is not None:
                await context.write(await task)
                free.release()

        writer = asyncio.create_task(write())
        acquired: asyncio.Task[Any] | None = None
        try:
            await free.acquire()
            async for content in requests:
                task = asyncio.create_task(self._stream_one(content, context, caller.now()))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
                waiting.put_nowait(task)
                acquired = asyncio.create_task(free.acquire())
                done, _ = await asyncio.wait({acquired, writer}, return_when="FIRST_COMPLETED")
                if writer in done:  # it cannot write any more
                    break
            waiting.put_nowait(None)
            await writer
        finally:
            writer.cancel()
            if acquired is not None:
                acquired.cancel()
            for task in tasks:
                task.cancel()

    async def _stream_one(self, content: bytes, context: Any, caller: _Caller) -> bytes:
        at_s, request_id = caller.at_s, caller.id
        try:
            with self.receiver.keeping(len(content)):
                response = await self._shell.infer(
                    decode(content), caller.arrival(context), request_id, caller.traceparent
                )
                serialized = encode_in_stream(response)
        except RefusedError as error:
            self._shell.refused("grpc", request_id, _STREAM, error, at_s, peer=caller.peer)
            serialized = _stream_refusal(details(error), id_of(content))
        except Exception:
            text = self._shell.broke("grpc", request_id, _STREAM, at_s, peer=caller.peer)
            serialized = _stream_refusal(text, id_of(content))
        else:
            self._shell.answered(
                "grpc", request_id, _STREAM, response.timings, at_s, peer=caller.peer
            )
        return serialized

    def _caller(self, context: Any) -> _Caller:
        sent: dict[str, Any] = dict(context.invocation_metadata() or ())
        parent = sent.get("traceparent")
        return _Caller(
            id=self._shell.ids.take(sent.get("x-request-id")),
            peer=unquote(context.peer()).partition(":")[2],  # after the family
            traceparent=parent if isinstance(parent, str) else None,
            at_s=time.perf_counter(),
        )


def _stream_refusal(text: str, own_id: str) -> bytes:
    answer = messages.ModelStreamInferResponse(error_message=text)
    answer.infer_response.id = own_id
    content: bytes = answer.SerializeToString()
    return content
