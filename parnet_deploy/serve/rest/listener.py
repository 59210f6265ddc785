"""The REST wire: a socket, its connections, who watches them, and how they end."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from email.utils import formatdate
from typing import Any

import uvicorn
from uvicorn.server import ServerState

from ..security.budget import Budget
from ..security.limits import Limits
from .connection import GuardedConnection
from .intake import Intake

_LONGEST_LOOK_S = 0.5


class RestListener:
    """Serves an ASGI application on one socket. Everything happens on the running event loop.

    Owns: the socket, once started.
    """

    def __init__(
        self,
        app: Any,
        sock: socket.socket,
        *,
        limits: Limits | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._limits = limits or Limits()
        self._app, self._socket, self._tls = app, sock, tls
        self._state = ServerState()
        self._server: asyncio.Server | None = None
        self._watch: asyncio.Task[None] | None = None
        own = {"limits": self._limits, "budget": Budget(self._limits.all_bodies_bytes)}
        self._kind: type[GuardedConnection] = type("Connection", (GuardedConnection,), own)

    async def start(self) -> None:
        """Accept connections."""
        kind = self._kind
        config = uvicorn.Config(
            self._app,
            http=kind,
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            server_header=False,
            proxy_headers=False,
        )
        config.timeout_keep_alive = self._limits.idle_s  # type: ignore[assignment]
        config.load()
        self._set_date()
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: Intake(kind(config=config, server_state=self._state, app_state={})),
            sock=self._socket,
            ssl=self._tls,
            backlog=1024,
            ssl_handshake_timeout=None if self._tls is None else self._limits.head_s,
        )
        self._watch = loop.create_task(self._look())

    def begin_drain(self) -> None:
        """Go on, but end each connection after its next answer."""
        self._kind.draining = True
        for connection in self._state.connections:
            connection.begin_drain()  # type: ignore[union-attr]

    def stop_accepting(self) -> None:
        """Close the socket, and the connections that wait for nothing; the others after it."""
        if self._server is not None:
            self._server.close()
        for connection in list(self._state.connections):
            connection.shutdown()

    async def wait_idle(self) -> None:
        """Until every request that has come by now is answered."""
        if self._state.tasks:
            await asyncio.wait(list(self._state.tasks))

    async def close(self) -> None:
        """End whatever there still is, at once."""
        self.stop_accepting()
        for connection in list(self._state.connections):
            connection.transport.abort()
        if self._watch is not None:
            self._watch.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watch
        await self.wait_idle()

    async def _look(self) -> None:
        limits = self._limits
        shortest_s = min(limits.head_s, limits.body_s, limits.write_s, limits.linger_s)
        while True:
            await asyncio.sleep(min(_LONGEST_LOOK_S, shortest_s / 4))
            self._set_date()
            now_s = asyncio.get_running_loop().time()
            for connection in list(self._state.connections):
                connection.look(now_s)  # type: ignore[union-attr]

    def _set_date(self) -> None:
        self._state.default_headers = [(b"date", formatdate(usegmt=True).encode("ascii"))]
