"""The ASGI application of the REST wire: who asks, what for, and what becomes of errors."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from ..protocol.refusal import Kind, RefusedError
from ..protocol.request import Timings
from ..security.limits import Limits
from ..security.token import Token
from ..shells.logs import peer_of
from ..shells.shell import Shell
from .answer import Answer, Receive, Scope, Send, error_body, refusal_answer
from .body import ClientGoneError, read_body
from .infer import infer
from .router import Router
from .routes import INFER_PATTERNS, OPEN, PATHS, Path

_SMALL_BODY_BYTES = 64 * 1024  # of everything but infer

_SINGLE: dict[bytes, Kind] = {
    b"authorization": "unauthenticated",
    b"inference-header-content-length": "invalid",
    b"content-encoding": "invalid",
}


@dataclass(frozen=True, kw_only=True)
class Page:
    """What else is answered by GET, beside the protocol. ``public``: without a token too."""

    make: Callable[[], Answer]
    public: bool = False


Target = Path | Page | None
"""What a path leads to; None is ``infer``."""


class RestApp:
    """Any ASGI server runs it. Under ``rest.listener`` a client that leaves cancels its request.

    Args:
        shell: What answers, and what counts and writes down.
        token: What clients must know; None: nothing.
        limits: Only its sizes matter here; times and connections are the ASGI server's.
        pages: Paths beside the protocol's: ``/``, ``/metrics``.
        only_health: Nothing of the protocol but the health of the server.
    """

    def __init__(
        self,
        shell: Shell,
        *,
        token: Token | None = None,
        limits: Limits | None = None,
        pages: Mapping[str, Page] | None = None,
        only_health: bool = False,
    ) -> None:
        self._shell, self._token = shell, token
        self._limits = limits or Limits()
        targets: list[tuple[str, Target]] = list((pages or {}).items())
        targets += [(p.pattern, p) for p in PATHS if p.pattern in OPEN or not only_health]
        if not only_health:
            targets += [(pattern, None) for pattern in INFER_PATTERNS]
        self._router: Router[Target] = Router(targets)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await _other(scope, receive, send)
            return
        at_s = time.perf_counter()
        headers: dict[bytes, bytes] = dict(scope["headers"])
        request_id = self._shell.ids.take(headers.get(b"x-request-id"))
        method: str = scope["method"]
        raw_path: bytes = scope.get("raw_path") or scope["path"].encode("utf-8", "replace")
        path = raw_path.decode("latin-1")
        what, peer = f"{method} {path}", peer_of(scope.get("client"))
        try:
            if len(headers) < len(scope["headers"]):
                _check_single(scope["headers"])
            answer, timings = await self._answer(method, path, headers, receive, request_id, at_s)
        except RefusedError as error:
            self._shell.refused("rest", request_id, what, error, at_s, peer=peer)
            answer = self._refusal(error, path)
        except ClientGoneError:
            return
        except Exception:
            body = error_body(self._shell.broke("rest", request_id, what, at_s, peer=peer))
            answer = Answer(
                status=500, headers=((b"content-type", b"application/json"),), body=body
            )
        else:
            self._shell.answered("rest", request_id, what, timings, at_s, peer=peer)
        await answer.send(send, ((b"x-request-id", request_id.encode("latin-1")),))

    async def _answer(
        self,
        method: str,
        path: str,
        headers: dict[bytes, bytes],
        receive: Receive,
        request_id: str,
        at_s: float,
    ) -> tuple[Answer, Timings | None]:
        found = self._router.find(path)
        self._admit(path, found, headers)
        if found is None:
            raise RefusedError(
                "not-found", f"path {path}: not found. See GET /v2/models/NAME and docs/serving.md."
            )
        target, parameters = found
        _check_method(method, path, _methods(target))
        if target is None:
            return await infer(
                self._shell,
                parameters["model"],
                parameters.get("version", ""),
                headers,
                receive,
                request_id=request_id,
                at_s=at_s,
                limits=self._limits,
            )
        if isinstance(target, Page):
            return target.make(), None
        if method != "POST":
            assert target.get is not None
            return target.get(self._shell.service, parameters, b""), None
        limit = min(_SMALL_BODY_BYTES, self._limits.body_bytes)
        body = await read_body(receive, headers, limit=limit)
        assert target.post is not None
        return target.post(self._shell.service, parameters, body), None

    def _admit(
        self, path: str, found: tuple[Target, dict[str, str]] | None, headers: dict[bytes, bytes]
    ) -> None:
        """Hold the token, before anything else is looked at or read."""
        if self._token is None or self._token.admits(headers.get(b"authorization")):
            return
        if found is not None:
            target = found[0]
            if isinstance(target, Page) and target.public:
                return
            if isinstance(target, Path) and target.pattern in OPEN:
                return
        raise RefusedError(
            "unauthenticated",
            "token: got none or a wrong one, expected the header Authorization: Bearer TOKEN. "
            "Ask whoever runs the server.",
        )

    def _refusal(self, error: RefusedError, path: str) -> Answer:
        if error.kind != "wrong-method":
            return refusal_answer(error)
        found = self._router.find(path)
        return refusal_answer(error, allow=", ".join(_methods(found[0])) if found else None)


def _check_single(headers: Iterable[tuple[bytes, bytes]]) -> None:
    """Refuse a second header of those that someone before us might read the other of."""
    seen = Counter(name for name, _ in headers)
    for name, kind in _SINGLE.items():
        if seen[name] > 1:
            raise RefusedError(
                kind, f"headers: got {seen[name]} of {name.decode()}, expected one. Send one."
            )


def _methods(target: Target) -> tuple[str, ...]:
    if target is None:
        return ("POST",)
    return ("GET", "HEAD") if isinstance(target, Page) else target.methods


def _check_method(method: str, path: str, allowed: tuple[str, ...]) -> None:
    if method not in allowed:
        raise RefusedError(
            "wrong-method", f"path {path}: got {method}, expected {' or '.join(allowed)}."
        )


async def _other(scope: Scope, receive: Receive, send: Send) -> None:
    """Lifespan events are acknowledged; there is nothing to do. WebSockets are not spoken."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 1000})
        return
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
