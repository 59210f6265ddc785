"""A process that does nothing but serve: signals, the event loop, and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Awaitable, Callable
from importlib import import_module

from ...errors import ParnetDeployError, ServeError
from ..shells.logs import LOGGER
from .files import raise_file_limit, too_few_files
from .memory import keep_freed_memory, spare_collector
from .server import Server

Reload = Callable[[bool], Awaitable[list[str]]]
"""Takes what is on disk now into service, if it is another one; the names of what it took. Told
whether somebody asked, or watching did."""


def serve_until_stopped(
    make_server: Callable[[], Server],
    *,
    on_ready: Callable[[Server], None],
    reload: Reload | None = None,
    watch_s: float | None = None,
) -> bool:
    """Serve until SIGTERM or SIGINT; then drain. A second signal ends it at once.

    SIGHUP, and every ``watch_s`` seconds, calls ``reload``; if that fails, what was served goes on,
    and the log says so, of failures that watching meets again and again once.
    To be called in the main thread. The event loop is uvloop's where that is installed.

    Args:
        make_server: Called on the event loop.
        on_ready: Called when it answers.
        reload: None: SIGHUP is ignored.
        watch_s: None: only SIGHUP reloads.

    Returns: Whether it had time to drain.

    Raises:
        ParnetDeployError: The server cannot start, or lost one of its ports for good.
    """
    keep_freed_memory()
    run = _event_loop_runner()
    return run(_Process(make_server, on_ready, reload, watch_s, raise_file_limit()).run())


class _Process:
    def __init__(
        self,
        make_server: Callable[[], Server],
        on_ready: Callable[[Server], None],
        reload: Reload | None,
        watch_s: float | None,
        files: int,
    ) -> None:
        self._make_server, self._on_ready = make_server, on_ready
        self._reload_models, self._watch_s, self._files = reload, watch_s, files
        self._stop, self._at_once = asyncio.Event(), asyncio.Event()
        self._changed = asyncio.Event()
        self._told = ""  # of a reload that failed

    async def run(self) -> bool:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_stop)
        loop.add_signal_handler(signal.SIGHUP, self._changed.set)
        server = self._make_server()
        warning = too_few_files(self._files, server.options.limits.connections)
        if warning is not None:
            LOGGER.warning(warning)
        if not await _unless(self._stop, server.start()):
            await server.close(drain_s=0.0)
            return True
        spare_collector()
        self._on_ready(server)
        reloading = asyncio.ensure_future(self._reload_forever())
        await _unless(self._stop, server.lost.wait())
        self._stop.set()
        reloading.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await reloading
        drained = await self._end(server)
        if server.lost.is_set():
            raise ServeError("server: got a port that broke for good, see the log. Start it again.")
        return drained

    async def _end(self, server: Server) -> bool:
        LOGGER.info("stopping: no new requests; another signal ends it at once")
        if await _unless(self._at_once, server.close()):
            return True
        await server.close(drain_s=0.0)
        return False

    def _on_stop(self) -> None:
        (self._at_once if self._stop.is_set() else self._stop).set()

    async def _reload_forever(self) -> None:
        while self._reload_models is not None:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._changed.wait(), self._watch_s)
            asked = self._changed.is_set()
            self._changed.clear()
            try:
                taken = await self._reload_models(asked)
            except Exception as error:
                self._tell(error, asked=asked)
            else:
                self._told = ""
                if asked and not taken:
                    LOGGER.warning("reload: nothing has changed on disk; what was served goes on")

    def _tell(self, error: Exception, *, asked: bool) -> None:
        """Write down why a reload failed; one that nobody asked for only if the reason is new."""
        text = repr(error)
        if asked or text != self._told:
            trace = not isinstance(error, ParnetDeployError)
            LOGGER.error("reload: what was served goes on; %s", error, exc_info=trace)
        self._told = text


async def _unless(event: asyncio.Event, work: Awaitable[object]) -> bool:
    """Do the work; whether it was done before the event came, which cancels it."""
    task, stopped = asyncio.ensure_future(work), asyncio.ensure_future(event.wait())
    await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if task.done():
        task.result()
        return True
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    return False


def _event_loop_runner() -> Callable[[Awaitable[bool]], bool]:
    try:
        found: Callable[[Awaitable[bool]], bool] = import_module("uvloop").run
    except ModuleNotFoundError:
        return asyncio.run  # type: ignore[return-value]
    return found
