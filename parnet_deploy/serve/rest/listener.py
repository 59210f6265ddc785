"""The REST wire: a socket, its connections, who watches them, and how they end."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import time
from email.utils import formatdate
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from ...errors import ServeError
from ..security.budget import Budget
from ..security.limits import Limits
from ..shells.logs import LOGGER, peer_of
from ..shells.shell import Shell
from .connection import GuardedConnection, too_many_connections
from .intake import Intake, new_scratch

_LONGEST_LOOK_S = 0.5
_PAUSE_S = 0.2


class RestListener:
    """Serves an ASGI application on one socket. Everything happens on the running event loop.

    Args:
        app: What answers.
        sock: Where.
        limits: Sizes, times and counts.
        shell: Counts and writes down what never comes to the application; None: nobody does.
        tls: None: plain.

    Owns: the socket, once started.
    """

    def __init__(
        self,
        app: Any,
        sock: socket.socket,
        *,
        limits: Limits | None = None,
        shell: Shell | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._limits = limits or Limits()
        self._app, self._socket, self._tls, self._shell = app, sock, tls, shell
        self._state = ServerState()
        self._accepting: asyncio.Task[None] | None = None
        self._opening: set[asyncio.Task[None]] = set()
        self._watch: asyncio.Task[None] | None = None
        budget = Budget(self._limits.all_bodies_bytes)
        own = {"limits": self._limits, "budget": budget, "shell": shell}
        self._kind: type[GuardedConnection] = type("Connection", (GuardedConnection,), own)

    async def start(self) -> None:
        """Accept connections.

        Raises:
            ServeError: This uvicorn cannot receive large bodies. The socket is closed.
        """
        try:
            _check_uvicorn()
        except ServeError:
            self._socket.close()
            raise
        kind, scratch = self._kind, new_scratch()
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
        self._socket.setblocking(False)
        self._make = lambda: Intake(
            kind(config=config, server_state=self._state, app_state={}), scratch
        )
        self._accepting = loop.create_task(self._accept())
        self._watch = loop.create_task(self._look())

    async def _accept(self) -> None:
        """Take connections; with TLS, those that have not shaken hands yet are counted too."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                sock, address = await loop.sock_accept(self._socket)
            except ConnectionError:  # it has left already
                continue
            except OSError as error:  # as many files as the process may have are open
                LOGGER.error("connections: none can be accepted for the moment; %s", error)
                await asyncio.sleep(_PAUSE_S)
                continue
            there = len(self._opening) + len(self._state.connections)
            if self._tls is not None and there >= self._limits.connections:
                sock.close()  # saying why would take the handshake
                self._count_one_too_many(peer_of(address[:2]))
                continue
            opening = loop.create_task(self._open(sock))
            self._opening.add(opening)
            opening.add_done_callback(self._opening.discard)
            await asyncio.sleep(0)  # the others' turn, however many are waiting

    def _count_one_too_many(self, peer: str) -> None:
        if self._shell is not None:
            error = too_many_connections(self._limits.connections)
            request_id = self._shell.ids.take(None)
            at_s = time.perf_counter()
            self._shell.refused("rest", request_id, "connection", error, at_s, peer=peer)

    async def _open(self, sock: socket.socket) -> None:
        with contextlib.suppress(OSError):  # no TLS, too slow, or gone
            await asyncio.get_running_loop().connect_accepted_socket(
                self._make,
                sock,
                ssl=self._tls,
                ssl_handshake_timeout=None if self._tls is None else self._limits.head_s,
            )

    def begin_drain(self) -> None:
        """Go on, but end each connection after its next answer."""
        self._kind.draining = True
        for connection in self._state.connections:
            connection.begin_drain()  # type: ignore[union-attr]

    def stop_accepting(self) -> None:
        """Take no more connections, and close those that wait for nothing."""
        for task in (self._accepting, *self._opening):
            if task is not None:
                task.cancel()
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
        mine = [task for task in (self._watch, self._accepting, *self._opening) if task is not None]
        await asyncio.gather(*mine, return_exceptions=True)
        self._socket.close()
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


def _check_uvicorn() -> None:
    """Refuse one whose connections never call what ``GuardedConnection`` overrides.

    Large requests would wait for ever there.
    """
    if not hasattr(HttpToolsProtocol, "_start_asgi_task"):
        raise ServeError(
            f"uvicorn: got {uvicorn.__version__}, expected 0.53 or 0.54. "
            "Install it: pip install 'parnet-deploy[serve]'."
        )
