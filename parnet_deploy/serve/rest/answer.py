"""Answers of the REST shell: JSON documents, refusals, and how they are sent."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

import orjson

from ..protocol.refusal import RefusedError

Headers = list[tuple[bytes, bytes]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Scope = MutableMapping[str, Any]

JSON = (b"content-type", b"application/json")
_LONGEST_ERROR = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A status, headers without Content-Length, and the body."""

    status: int = 200
    headers: tuple[tuple[bytes, bytes], ...] = ()
    body: bytes = b""

    async def send(self, send: Send, more: tuple[tuple[bytes, bytes], ...] = ()) -> None:
        """Send it, with some more headers."""
        headers: Headers = [
            (b"content-length", b"%d" % len(self.body)),
            *self.headers,
            *more,
        ]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": self.body})


def json_answer(document: object, *, status: int = 200) -> Answer:
    """A JSON document."""
    return Answer(status=status, headers=(JSON,), body=orjson.dumps(document))


def refusal_answer(
    error: RefusedError, *, allow: str | None = None, headers: Mapping[bytes, bytes] | None = None
) -> Answer:
    """What was refused and why, as ``{"error": ...}``.

    503 says when to come back; 401 says how to identify oneself; 405 says what is allowed.
    """
    code = error.code
    found: Headers = [JSON, *(headers or {}).items()]
    if code.http == 401:
        found.append((b"www-authenticate", b'Bearer realm="parnet-deploy"'))
    if code.retry:
        found.append((b"retry-after", b"%d" % retry_after(error)))
    if allow is not None:
        found.append((b"allow", allow.encode("ascii")))
    body = error_body(str(error))
    return Answer(status=code.http, headers=tuple(found), body=body)


def retry_after(error: RefusedError) -> int:
    """Whole seconds, at least one: the header has no finer unit."""
    return max(1, math.ceil(error.retry_after_s or 0))


def error_body(message: str) -> bytes:
    """The JSON that every client of the protocol reads."""
    cut = message if len(message) <= _LONGEST_ERROR else message[: _LONGEST_ERROR - 3] + "..."
    return orjson.dumps({"error": cut.encode("utf-8", "replace").decode("utf-8")})
