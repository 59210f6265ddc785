"""One HTTP connection: uvicorn's, with what it lacks: limits on heads, and on slow clients.

uvicorn's httptools protocol parses and speaks ASGI. Added here: bounds on the head's size and
number of headers, errors as JSON, one wake-up for a whole body instead of one for each 64 KiB, and
since when a client keeps the connection waiting, which ``look`` acts upon.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any, Literal

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from ..protocol.refusal import RefusedError
from ..security.budget import Budget
from ..security.limits import Limits
from ..shells.logs import peer_of
from ..shells.shell import Shell
from .answer import Answer, refusal_answer
from .intake import READ_BYTES, LargeBody

_LARGE_BYTES = 2 * READ_BYTES  # of a body that is worth memory of its own
_DIGITS = 12

Phase = Literal["new", "head", "body", "answer", "idle"]
"""What is awaited: a first byte, the rest of the head, of the body, our own answer, or nothing."""


class GuardedConnection(HttpToolsProtocol):
    """Made by ``RestListener``, which also looks at it from time to time."""

    limits = Limits()  # a listener's own, like its budget, are in its subclass
    budget = Budget(limits.all_bodies_bytes)
    draining = False
    shell: Shell | None = None  # that counts and writes down what the connection itself refuses

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.access_log = False
        self._phase: Phase = "new"
        self._since_s = self.loop.time()
        self._messages = self._unparsed_bytes = 0
        self._head_bytes = self._header_count = self._body_bytes = 0
        self._stuck_since_s: float | None = None
        self._closing_since_s: float | None = None
        self._task: asyncio.Task[None] | None = None
        self.large_body: LargeBody | None = None  # that is being received

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Refuse at once what is one connection too many."""
        super().connection_made(transport)
        if len(self.connections) > self.limits.connections:
            self._refuse(too_many_connections(self.limits.connections))

    def begin_drain(self) -> None:
        """The answer that is awaited is the last one; what comes later sees ``draining``."""
        if self.cycle is not None:
            self.cycle.keep_alive = False

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel the request that is being answered: nobody waits for it any more."""
        unanswered = self.cycle is not None and not self.cycle.response_complete
        for waiting, _ in self.pipeline:
            self._give_back(waiting)
        self.pipeline.clear()
        super().connection_lost(exc)
        if unanswered and self._task is not None:
            self._task.cancel()

    def data_received(self, data: bytes | memoryview) -> None:
        """Parse what came; what is no HTTP is refused as JSON, and ends the connection."""
        if self.parser is None or self.transport.is_closing():
            return
        self._unset_keepalive_if_required()
        if self._phase in ("new", "idle"):
            self._enter("head")
        begun = self._messages + (self._unparsed_bytes == 0)
        in_head = self._phase == "head"
        try:
            self.parser.feed_data(data)
            if in_head and self._phase == "head" and self._messages <= begun:
                self._unparsed_bytes += len(data)  # all of it is head, and the head goes on
                self._check_head(self._unparsed_bytes)
            self._await_application()
        except httptools.HttpParserUpgrade:
            pass  # not spoken: the request is answered as if it had not asked
        except httptools.HttpParserError as error:
            cause = error.__context__
            self._refuse(cause if isinstance(cause, RefusedError) else _NO_HTTP)
        except RefusedError as error:
            self._refuse(error)

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._messages += 1
        self._head_bytes = self._header_count = self._body_bytes = 0

    def on_url(self, url: bytes) -> None:
        """Part of the request line."""
        self._head_bytes += len(url)
        self._check_head(self._head_bytes)
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header, whole."""
        self._header_count += 1
        self._head_bytes += len(name) + len(value) + 4
        self._check_head(self._head_bytes)
        if self._header_count > self.limits.headers:
            message = f"headers: got more than {self.limits.headers}. Send fewer."
            raise RefusedError("too-large", message)
        if name.lower() == b"transfer-encoding" and value.strip().lower() != b"chunked":
            raise RefusedError(
                "invalid",
                f"Transfer-Encoding: got {value.decode('latin-1')}, expected chunked. Compress the "
                "body, if at all, under Content-Encoding.",
            )
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head is there: the application starts, before the body has arrived."""
        self._unparsed_bytes = 0
        self._enter("body")
        super().on_headers_complete()
        cycle: Any = self.cycle
        cycle.large_body, cycle.taken_bytes, cycle.is_wanted = None, 0, False
        cycle.keep_alive = cycle.keep_alive and not self.draining

    def on_body(self, body: bytes) -> None:
        """Gather the body; the application is woken when it is complete, or too large."""
        self._body_bytes += len(body)
        if self.cycle.response_complete:
            return
        self._take(self.cycle, len(body))
        self.cycle.body += body
        if self._body_bytes > self.limits.body_bytes:
            self.flow.pause_reading()
            self.cycle.message_event.set()

    def on_message_complete(self) -> None:
        """The body is complete."""
        super().on_message_complete()
        self._enter("idle" if self.cycle.response_complete else "answer")

    def large_body_advanced(self) -> None:
        """Part of a large body came, past the parser."""
        body = self.large_body
        if body is None:
            return
        self._body_bytes = body.filled
        if body.is_complete:
            self.large_body = None
            self.parser = httptools.HttpRequestParser(self)  # the old one still waits for it
            if not self.cycle.response_complete:
                self.cycle.more_body = False
                self.cycle.message_event.set()
            self._enter("idle" if self.cycle.response_complete else "answer")

    def _await_application(self) -> None:
        """Read no more of a body before the application has asked for it, or has answered."""
        cycle: Any = self.cycle
        if self._phase == "body" and not (cycle.is_wanted or cycle.response_complete):
            self.flow.pause_reading()

    def _expect_large_body(self, cycle: Any) -> None:
        """Have the rest of a body received past the parser, if it is large and its length known.

        Not before the application asks for it: what it refuses unseen takes up no memory.
        """
        if self.cycle is not cycle or self._phase != "body" or self.cycle.response_complete:
            return
        length, header_length = _announced(self.headers)
        if self.large_body is not None or not _LARGE_BYTES <= length <= self.limits.body_bytes:
            return
        self._take(cycle, length - len(cycle.body))
        body = LargeBody(length, min(header_length, length))
        body.add(cycle.body)
        cycle.body = bytearray()
        cycle.large_body = self.large_body = body  # type: ignore[attr-defined]

    def _take(self, cycle: Any, count: int) -> None:
        self.budget.take(count)
        cycle.taken_bytes += count

    def _give_back(self, cycle: Any) -> None:
        self.budget.give_back(cycle.taken_bytes)
        cycle.taken_bytes = 0

    def on_response_complete(self) -> None:
        """The answer is written; the rest of a refused request's body may still be coming."""
        self._enter("idle" if self._phase == "answer" else self._phase)
        if self.cycle.response_complete:
            self._drop_body()
        super().on_response_complete()

    def _drop_body(self) -> None:
        """Nobody wants it any more: keep nothing of it, and of what still comes."""
        cycle: Any = self.cycle
        cycle.large_body, cycle.body = None, bytearray()
        if self.large_body is not None:
            self.large_body.discard()

    def pause_writing(self) -> None:
        """The client does not read."""
        self._stuck_since_s = self.loop.time()
        super().pause_writing()

    def resume_writing(self) -> None:
        """It does again."""
        self._stuck_since_s = None
        super().resume_writing()

    def look(self, now_s: float) -> None:
        """End the connection if the client keeps it waiting for too long."""
        limits, waited_s = self.limits, now_s - self._since_s
        if self.transport.is_closing():
            self._closing_since_s = self._closing_since_s or now_s
            if now_s - self._closing_since_s > limits.write_s:
                self.transport.abort()
        elif self._stuck_since_s is not None and now_s - self._stuck_since_s > limits.write_s:
            self.transport.abort()
        elif self._phase == "new" and waited_s > limits.head_s:
            self.transport.close()
        elif self._phase == "head" and waited_s > limits.head_s:
            self._refuse(_too_slow("head", limits.head_s))
        elif self._phase == "body" and not self.flow.read_paused:
            self._look_at_body(waited_s)

    def _look_at_body(self, waited_s: float) -> None:
        limits = self.limits
        if self.cycle.response_complete:
            if waited_s > limits.linger_s:
                self.transport.abort()
            return
        allowed_s = limits.body_time_s(self._body_bytes)
        if waited_s > allowed_s:
            self._refuse(_too_slow("body", allowed_s))

    def _enter(self, phase: Phase) -> None:
        self._phase, self._since_s = phase, self.loop.time()

    def _check_head(self, size: int) -> None:
        if size > self.limits.head_bytes:
            raise RefusedError(
                "too-large",
                f"head: got more than {self.limits.head_bytes} bytes of request line and headers. "
                "Send fewer or shorter ones.",
            )

    def _refuse(self, error: RefusedError) -> None:
        """Answer what did not reach the application as a whole, and close.

        An answer that was begun, or an earlier request's that is still awaited, cannot be replaced:
        then the connection just ends.
        """
        request_id = self._write_down(error)
        cycle = self.cycle
        running = cycle is not None and not cycle.response_complete
        if running and (self.pipeline or cycle.response_started or not cycle.more_body):
            self.transport.abort()
            return
        if running:
            # Marked as left too, or uvicorn would find fault with what the application still says.
            cycle.response_started = cycle.response_complete = cycle.disconnected = True
            cycle.message_event.set()
            self._drop_body()
        self.transport.write(_as_bytes(refusal_answer(error), request_id))
        self.transport.close()

    def _write_down(self, error: RefusedError) -> bytes | None:
        """Count and log a refusal; what it is called."""
        if self.shell is None:
            return None
        scope = self.scope if self._phase == "body" else None  # else it is an earlier request's
        headers: dict[bytes, bytes] = dict(self.headers) if scope is not None else {}
        request_id = self.shell.ids.take(headers.get(b"x-request-id"))
        what = "connection"
        if scope is not None and "raw_path" in scope:
            what = f"{scope['method']} {scope['raw_path'].decode('latin-1')}"
        at_s = time.perf_counter() - (self.loop.time() - self._since_s)
        peer = peer_of(self.client)
        self.shell.refused("rest", request_id, what, error, at_s, peer=peer)
        return request_id.encode("latin-1")

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        async def receive_whole() -> Any:
            self._expect_large_body(cycle)
            cycle.is_wanted = True
            message = await cycle.receive()
            body: LargeBody | None = cycle.large_body
            if body is not None and message["type"] == "http.request":
                message["body"] = body.content
                cycle.large_body = None  # the connection may stay open long after
            return message

        async def run(scope: Any, receive: Any, send: Any) -> None:
            try:
                await app(scope, receive_whole, send)
            except asyncio.CancelledError:
                if not (cycle.disconnected or self.transport.is_closing()):
                    raise
                cycle.disconnected = True  # pipelined: uvicorn marks the newest request only

        self._task = task = self.loop.create_task(cycle.run_asgi(run))
        task.add_done_callback(self.tasks.discard)
        task.add_done_callback(lambda _: self._give_back(cycle))
        self.tasks.add(task)


_NO_HTTP = RefusedError("invalid", "request: got something else than HTTP/1.1, expected that.")


def _announced(headers: list[tuple[bytes, bytes]]) -> tuple[int, int]:
    """Length of the body, and of the JSON in it, as the head has them; 0: not said."""
    length = header_length = 0
    for name, value in headers:
        if name == b"content-length" and value.isdigit():
            length = int(value)
        elif name == b"inference-header-content-length" and value.isdigit():
            header_length = int(value[:_DIGITS])
    return length, header_length


def too_many_connections(limit: int) -> RefusedError:
    """What a connection beyond the limit is told."""
    return RefusedError("busy", f"connections: got more than {limit}. Try again later.")


def _too_slow(what: str, allowed_s: float) -> RefusedError:
    message = f"{what}: not complete after {allowed_s:.3g} s. Send it faster, or less of it."
    return RefusedError("too-slow", message)


def _as_bytes(answer: Answer, request_id: bytes | None) -> bytes:
    """An answer as it goes over the wire, with the end of the connection announced."""
    headers = [*answer.headers, (b"content-length", b"%d" % len(answer.body))]
    if request_id is not None:
        headers.append((b"x-request-id", request_id))
    lines = [name + b": " + value + b"\r\n" for name, value in headers]
    end = b"connection: close\r\n\r\n"
    return b"".join([STATUS_LINE[answer.status], *lines, end, answer.body])
