"""One process that serves: both wires over one service, on one event loop."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from collections.abc import Callable, Mapping
from typing import Protocol

from ...errors import ServeError
from ..protocol.contract import Service
from ..rest.answer import Answer
from ..rest.app import Page, RestApp
from ..rest.listener import RestListener
from ..rpc.listener import RpcListener
from ..shells.logs import LOGGER
from ..shells.shell import OnRefused, Shell
from ..shells.telemetry import Tracer
from .options import ServerOptions

LOOPBACK = "127.0.0.1"


class ServedService(Service, Protocol):
    """A service that a server can open, drain and close."""

    async def start(self) -> None:
        """Open the models; ``is_ready`` is true afterwards."""
        ...

    def begin_drain(self) -> None:
        """Refuse what comes; ``is_ready`` is false from now on."""
        ...

    async def close(self, drain_s: float = 0.0) -> None:
        """Finish what is there for so long, refuse the rest, let go. Idempotent."""
        ...


class Server:
    """Listens, opens the service, and answers until it is closed.

        async with Server(service, ServerOptions(port=0, grpc_port=None)) as server:
            ...  # ask server.url

    Touches no signals: ``server.process`` does. Until the models are open, health says
    "live" and "not ready".

    ``lost``: set if a wire broke for good; it is not ready any more and should be closed.

    Owns: the service, which it closes, and the sockets.
    """

    def __init__(
        self,
        service: ServedService,
        options: ServerOptions | None = None,
        *,
        pages: Mapping[str, Page] | None = None,
        metrics: Callable[[], tuple[bytes, str]] | None = None,
        on_refused: OnRefused | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        self._service, self.options = service, options or ServerOptions()
        self._pages = dict(pages or {})
        self._shell = Shell(service, on_refused=on_refused, tracer=tracer)
        if metrics is not None:
            self._metrics: Page | None = Page(make=lambda: _metrics_answer(metrics))
        else:
            self._metrics = None
        self._rest: list[RestListener] = []
        self._rpc: RpcListener | None = None
        self.lost = asyncio.Event()
        self.address = ""
        self.port: int | None = None
        self.grpc_port: int | None = None
        self.metrics_port: int | None = None

    @property
    def url(self) -> str | None:
        """Where REST is answered; None if it is not."""
        scheme = "http" if self.options.tls is None else "https"
        return None if self.port is None else f"{scheme}://{_host(self.address)}:{self.port}"

    @property
    def grpc_target(self) -> str | None:
        """Where gRPC is answered; None if it is not."""
        return None if self.grpc_port is None else f"{_host(self.address)}:{self.grpc_port}"

    async def __aenter__(self) -> Server:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def start(self) -> None:
        """Listen, then open the models.

        Raises:
            ServeError: An address, port or certificate cannot be used.
            ParnetDeployError: A model cannot be opened; nothing listens any more.
        """
        options = self.options
        self.address = options.address()
        for warning in options.warnings(self.address):
            LOGGER.warning(warning)
        try:
            await self._listen(options)
            await self._service.start()
        except BaseException:
            await self.close(drain_s=0.0)
            raise

    async def close(self, drain_s: float | None = None) -> None:
        """Refuse what comes, finish what is there, and end the rest after ``drain_s``.

        Until what is there is finished, both wires go on to say that the server is stopping, and
        "not ready" to whoever asks for its health. Then nothing listens any more.

        Args:
            drain_s: None: as the options say.
        """
        patience_s = self.options.drain_s if drain_s is None else drain_s
        self._service.begin_drain()
        for listener in self._rest:
            listener.begin_drain()
        waiting = [self._drain(patience_s)]
        tasks = [asyncio.ensure_future(each) for each in waiting]
        # The service itself keeps to patience_s; what is left after it is connections.
        done, late = await asyncio.wait(tasks, timeout=patience_s + 1.0)
        for listener in self._rest:
            await listener.close()
        self._rest = []
        if self._rpc is not None:
            await self._rpc.close(0.0)
        for task in late:
            task.cancel()
        self._shell.flush()
        for task in done:
            task.result()

    async def _drain(self, patience_s: float) -> None:
        """Answer what is there, then listen no more, and answer what came in the meantime.

        Until then both wires answer that the server is stopping.
        """
        clock = asyncio.get_running_loop().time
        until_s = clock() + patience_s
        await asyncio.gather(
            self._service.close(patience_s), *(each.wait_idle() for each in self._rest)
        )
        for listener in self._rest:
            listener.stop_accepting()
        waiting = [each.wait_idle() for each in self._rest]
        if self._rpc is not None:
            waiting.append(self._rpc.close(max(0.0, until_s - clock())))
        await asyncio.gather(*waiting)

    async def _listen(self, options: ServerOptions) -> None:
        context = None if options.tls is None else options.tls.context()
        pages = dict(self._pages)
        if options.port is not None:
            if self._metrics is not None and options.metrics_port is None:
                pages["/metrics"] = self._metrics
            app = RestApp(
                self._shell,
                token=options.token,
                limits=options.limits,
                pages=pages,
            )
            sock = bind(self.address, options.port, "--port")
            self.port = sock.getsockname()[1]
            await self._add(app, sock, context)
        if options.metrics_port is not None and self._metrics is not None:
            app = RestApp(
                self._shell,
                limits=options.limits,
                pages={"/metrics": self._metrics},
                only_health=True,
            )
            sock = bind(LOOPBACK, options.metrics_port, "--metrics-port")
            self.metrics_port = sock.getsockname()[1]
            await self._add(app, sock)
        if options.grpc_port is not None:
            self._rpc = RpcListener(
                self._shell,
                self.address,
                options.grpc_port,
                token=options.token,
                limits=options.limits,
                tls=options.tls,
                on_lost=self._on_lost,
            )
            await self._rpc.start()
            self.grpc_port = self._rpc.port

    def _on_lost(self) -> None:
        self._service.begin_drain()
        self.lost.set()

    async def _add(
        self, app: RestApp, sock: socket.socket, tls: ssl.SSLContext | None = None
    ) -> None:
        limits = self.options.limits
        listener = RestListener(app, sock, limits=limits, shell=self._shell, tls=tls)
        await listener.start()
        self._rest.append(listener)


def bind(address: str, port: int, option: str) -> socket.socket:
    """A listening socket.

    Raises:
        ServeError: The port is in use, or may not be had.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    both = address == "::" and socket.has_dualstack_ipv6()
    try:
        found = socket.create_server(
            (address, port), family=family, backlog=1024, dualstack_ipv6=both
        )
        found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # what it accepts inherits it
        return found
    except OSError as error:
        if error.errno == errno.EADDRNOTAVAIL:
            raise ServeError(
                f"host {address}: got {error.strerror}, expected an address of this machine. "
                "Choose another with --host; `ip address` lists them."
            ) from error
        raise ServeError(
            f"port {port} at {address}: got {error.strerror or error}, expected a free one. "
            f"Choose another with {option}, 0 for any, or stop what uses it."
        ) from error


def _metrics_answer(metrics: Callable[[], tuple[bytes, str]]) -> Answer:
    body, kind = metrics()
    return Answer(headers=((b"content-type", kind.encode("ascii")),), body=body)


def _host(address: str) -> str:
    return f"[{address}]" if ":" in address else address
