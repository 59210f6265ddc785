"""The gRPC wire: the server, its rpcs and limits, and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio

from ...errors import ServeError
from ..protocol.contract import Service
from ..protocol.messages import SERVICE, methods
from ..protocol.refusal import RefusedError
from ..security.limits import Limits
from ..security.tls import TlsFiles
from ..security.token import Token
from ..shells.logs import LOGGER
from ..shells.shell import Shell
from .calls import Calls
from .documents import DOCUMENTS, OPEN
from .health import CHECK, check
from .receive import WINDOW_BYTES, Receiver
from .refuse import abort, refusing

_UNAUTHENTICATED = RefusedError(
    "unauthenticated",
    "token: got none, a wrong one or several, expected the metadata authorization: Bearer TOKEN. "
    "Ask whoever runs the server.",
)
_UNKNOWN = RefusedError("not-offered", "method: got one that is not in the protocol.")


_LOOK_S = 1.0  # how often it is looked whether the server still runs
_PAUSES_S = (0.0, 0.1, 1.0, 5.0)  # before each attempt at opening it anew


class Handlers(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Every rpc of the protocol, and the standard health check."""

    def __init__(self, shell: Shell, token: Token | None, limits: Limits):
        self._token = token
        calls = Calls(shell, limits)
        open_calls = Calls(shell, limits)  # those that need no token are bounded by themselves
        self._handlers: dict[str, Any] = {}
        for method in methods():
            its = open_calls if method.name in OPEN else calls
            self._handlers[f"/{SERVICE}/{method.name}"] = _handler(its, method.name)
        health = _health(shell.service, open_calls.receiver)
        self._handlers[CHECK] = grpc.stream_unary_rpc_method_handler(health)
        self._open = {CHECK, *(f"/{SERVICE}/{rpc}" for rpc in OPEN)}
        self._refuse = refusing(_UNAUTHENTICATED)
        self._unknown = refusing(_UNKNOWN)

    def service(self, handler_call_details: Any) -> Any:
        """The handler of a call; it holds the token before the message is read."""
        method = handler_call_details.method
        if self._token is not None and method not in self._open:
            given = [
                value if isinstance(value, bytes) else value.encode("utf-8", "replace")
                for key, value in handler_call_details.invocation_metadata
                if key == "authorization"
            ]
            if len(given) != 1 or not self._token.admits(given[0]):
                return self._refuse
        return self._handlers.get(method, self._unknown)


def _handler(calls: Calls, rpc: str) -> Any:
    if rpc == "ModelStreamInfer":
        return grpc.stream_stream_rpc_method_handler(calls.stream)
    if rpc == "ModelInfer":
        return grpc.stream_unary_rpc_method_handler(calls.infer)
    return grpc.stream_unary_rpc_method_handler(calls.document(rpc, DOCUMENTS[rpc]))


def _health(service: Service, receiver: Receiver) -> Any:
    async def behavior(requests: Any, context: Any) -> bytes:
        try:
            return check(service, await receiver.receive(context))
        except RefusedError as error:
            await abort(context, error)

    return behavior


class RpcListener:
    """Serves gRPC on one address. Everything happens on the running event loop.

    A server of gRPC's that ends without having been told to (an error in its loop that accepts
    calls) is replaced by another on the same port.

    Args:
        shell: What answers, and what counts and writes down.
        address: Resolved, as numbers.
        port: 0: any free one; see ``port`` after ``start``.
        token: What clients must know; None: nothing.
        limits: Sizes, times and counts.
        tls: None: plain.
        on_lost: Called once if gRPC's server ended and the port could not be had again.
    """

    def __init__(
        self,
        shell: Shell,
        address: str,
        port: int,
        *,
        token: Token | None = None,
        limits: Limits | None = None,
        tls: TlsFiles | None = None,
        on_lost: Callable[[], None] | None = None,
    ) -> None:
        limits = limits or Limits()
        self._address, self.port, self._tls = address, port, tls
        self._options, self._on_lost = _options(limits), on_lost
        self._handlers = Handlers(shell, token, limits)
        self._server: Any = None
        self._keeping: asyncio.Task[None] | None = None
        self._stopping: asyncio.Future[None] | None = None

    async def start(self) -> None:
        """Accept calls.

        Raises:
            ServeError: The port cannot be had, or the certificate cannot be used.
        """
        await self._open()
        self._keeping = asyncio.create_task(self._keep())

    async def close(self, grace_s: float) -> None:
        """Accept no more, let calls finish for so long, and end the rest.

        May be called again meanwhile, with less time. gRPC's own ``stop`` must not: where two of
        them overlap, the one may use what the other has freed, and the process dies.
        """
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.wait({self._keeping})
        if self._server is not None:
            while self._stopping is not None and not self._stopping.done():
                self._stopping.cancel()
                await asyncio.wait({self._stopping})
            self._stopping = stopping = asyncio.ensure_future(self._server.stop(grace_s))
            await asyncio.wait({stopping})
            if not stopping.cancelled():
                stopping.result()

    async def _open(self) -> None:
        host = f"[{self._address}]" if ":" in self._address else self._address
        where = f"{host}:{self.port}"
        self._server = server = grpc.aio.server(options=self._options)
        server.add_generic_rpc_handlers((self._handlers,))
        try:
            if self._tls is None:
                self.port = server.add_insecure_port(where)
            else:
                self.port = server.add_secure_port(where, _credentials(self._tls))
        except RuntimeError as error:
            raise ServeError(
                f"port {where}: got an error when it was opened for gRPC, expected a free port "
                "at an address of this machine. Choose another with --grpc-port, 0 for any, or "
                "--host, or stop what uses it."
            ) from error
        await server.start()

    async def _keep(self) -> None:
        """Replace each server that ends, until cancelled."""
        while True:
            try:
                if await self._server.wait_for_termination(_LOOK_S):
                    continue  # it runs
                cause = "without an error"
            except Exception as error:
                cause = type(error).__name__
            LOGGER.error("gRPC: its server ended by itself (%s); opening it again", cause)
            with contextlib.suppress(Exception):  # what ended it may be raised once more
                await self._server.stop(None)
            if not await self._open_again():
                return

    async def _open_again(self) -> bool:
        for pause_s in _PAUSES_S:
            await asyncio.sleep(pause_s)
            try:
                await self._open()
            except ServeError as error:
                LOGGER.error("gRPC: %s", error)
            else:
                return True
        if self._on_lost is not None:
            self._on_lost()
        return False


def _options(limits: Limits) -> list[tuple[str, int]]:
    """Channel arguments of gRPC core."""
    return [
        ("grpc.max_receive_message_length", limits.body_bytes),
        ("grpc.max_send_message_length", -1),
        ("grpc.max_metadata_size", limits.head_bytes),
        ("grpc.absolute_max_metadata_size", limits.head_bytes),
        ("grpc.max_concurrent_streams", limits.calls),
        ("grpc.http2.bdp_probe", 0),  # or what a call may send unasked grows to several MiB
        ("grpc.http2.lookahead_bytes", WINDOW_BYTES),
        ("grpc.max_allowed_incoming_connections", limits.connections),
        ("grpc.server_handshake_timeout_ms", round(1e3 * limits.head_s)),
        ("grpc.so_reuseport", 0),  # a port in use is an error, not shared
        ("grpc.keepalive_time_ms", round(1e3 * limits.idle_s)),
        ("grpc.keepalive_timeout_ms", round(1e3 * limits.write_s)),
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ]


def _credentials(tls: TlsFiles) -> Any:
    certificate, key, client_ca = tls.read()
    return grpc.ssl_server_credentials(
        [(key, certificate)],
        root_certificates=client_ca,
        require_client_auth=client_ca is not None,
    )
