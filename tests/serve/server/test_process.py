"""Signals: drain, at once, reload."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from parnet_deploy.errors import DeploymentError, EngineLoadError
from parnet_deploy.serve.server import process
from parnet_deploy.serve.server.options import ServerOptions
from parnet_deploy.serve.server.server import Server
from parnet_deploy.serve.shells.logs import LOGGER
from tests.serve.fake_service import FakeService
from tests.serve.wire import HANG_S, INFER, connected, json_body, request


@pytest.fixture(autouse=True)
def _not_this_process(monkeypatch) -> None:
    monkeypatch.setattr(process, "keep_freed_memory", lambda: True)
    monkeypatch.setattr(process, "raise_file_limit", lambda: 2000)


class Run:
    """``serve_until_stopped`` over a fake service, with a scenario once it answers."""

    def __init__(self, scenario, **more) -> None:
        self.service, self.scenario, self.more = FakeService(), scenario, more
        self.outcome: asyncio.Future | None = None

    def start(self) -> bool:
        options = ServerOptions(port=0, grpc_port=0, drain_s=HANG_S)
        drained = process.serve_until_stopped(
            lambda: Server(self.service, options), on_ready=self._on_ready, **self.more
        )
        assert self.outcome is not None
        self.outcome.result()
        assert self.service.closed
        return drained

    def _on_ready(self, server) -> None:
        async def scenario() -> None:
            try:
                await asyncio.wait_for(self.scenario(server, self.service), HANG_S)
            except BaseException:
                for _ in range(2):
                    os.kill(os.getpid(), signal.SIGTERM)
                raise

        self.outcome = asyncio.ensure_future(scenario())


def stop(number=signal.SIGTERM) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains(number) -> None:
    async def scenario(server, service):
        service.held.clear()
        async with connected(server) as http:
            http.send(request(INFER, json_body()))
            await service.until(lambda s: s.entered == 1)
            stop(number)
            await service.until(lambda s: s.closed)
            service.held.set()
            assert (await http.reply()).status == 200

    assert Run(scenario).start()


def test_a_low_limit_of_open_files_is_told(monkeypatch, caplog) -> None:
    monkeypatch.setattr(process, "raise_file_limit", lambda: 100)

    async def scenario(server, service):
        stop()

    assert Run(scenario).start()
    assert "open files: got a limit of 100" in caplog.text


def test_a_second_signal_ends_it_at_once() -> None:
    async def scenario(server, service):
        service.held.clear()
        async with connected(server) as http:
            http.send(request(INFER, json_body()))
            await service.until(lambda s: s.entered == 1)
            stop()
            await service.until(lambda s: s.closed)
            stop()
            assert await http.ended() == b""

    assert not Run(scenario).start()


def test_a_signal_while_models_are_opened_ends_it() -> None:
    service = FakeService()

    async def start() -> None:
        stop()
        await asyncio.Event().wait()

    service.start = start
    options = ServerOptions(port=0, grpc_port=None)
    ready = []
    assert process.serve_until_stopped(lambda: Server(service, options), on_ready=ready.append)
    assert service.closed
    assert not ready


def test_what_cannot_start_raises() -> None:
    service = FakeService()

    async def start() -> None:
        raise EngineLoadError("engine: got none.")

    service.start = start
    options = ServerOptions(port=0, grpc_port=None)
    with pytest.raises(EngineLoadError):
        process.serve_until_stopped(lambda: Server(service, options), on_ready=print)
    assert service.closed


def ours(caplog) -> list:
    """Without asyncio's: gRPC, on several event loops one after another, makes it complain."""
    return [r for r in caplog.records if r.name == LOGGER.name]


def test_sighup_reloads_and_a_failure_changes_nothing(caplog) -> None:
    reloads = []
    outcomes = [DeploymentError("deployment: gone."), ValueError("a bug"), None]
    done = asyncio.Event()

    async def reload(asked: bool) -> list[str]:
        reloads.append(asked)
        done.set()
        outcome = outcomes[len(reloads) - 1]
        if outcome is not None:
            raise outcome
        return ["toy"]

    async def scenario(server, service):
        for _ in outcomes:
            done.clear()
            stop(signal.SIGHUP)
            await done.wait()
        async with connected(server) as http:
            assert (await http.ask("/v2/health/ready")).status == 200
        stop()

    assert Run(scenario, reload=reload).start()
    assert reloads == [True] * 3
    errors = [r.getMessage() for r in ours(caplog) if r.levelname == "ERROR"]
    assert [e.split(";")[0] for e in errors] == ["reload: what was served goes on"] * 2
    assert "deployment: gone." in errors[0]


def test_watching_reloads_by_itself() -> None:
    reloads = []
    often = asyncio.Event()

    async def reload(asked: bool) -> list[str]:
        reloads.append(asked)
        if len(reloads) == 3:
            often.set()
        return []

    async def scenario(server, service):
        await often.wait()
        stop()

    assert Run(scenario, reload=reload, watch_s=0.001).start()
    assert not any(reloads)


def test_a_failure_that_watching_meets_again_is_told_once(caplog) -> None:
    texts = iter(["gone.", "gone.", "gone.", "broken.", "broken.", "", "broken."])
    over = asyncio.Event()

    async def reload(asked: bool) -> list[str]:
        text = next(texts, None)
        if text is None:
            over.set()
        if text:
            raise DeploymentError(f"deployment: {text}")
        return []

    async def scenario(server, service):
        await over.wait()
        stop()

    assert Run(scenario, reload=reload, watch_s=0.001).start()
    told = [r.getMessage().split()[-1] for r in ours(caplog) if r.levelname == "ERROR"]
    assert told == ["gone.", "broken.", "broken."]
    assert not [r for r in caplog.records if "nothing has changed" in r.getMessage()]


def test_sighup_tells_a_failure_again_and_that_nothing_has_changed(caplog) -> None:
    outcomes = iter(
        [DeploymentError("deployment: gone."), DeploymentError("deployment: gone."), None]
    )

    async def reload(asked: bool) -> list[str]:
        outcome = next(outcomes)
        if outcome is not None:
            raise outcome
        return []

    async def scenario(server, service):
        for count in (1, 2, 3):
            stop(signal.SIGHUP)
            while sum(r.getMessage().startswith("reload:") for r in caplog.records) < count:
                await asyncio.sleep(0)
        stop()

    assert Run(scenario, reload=reload).start()
    told = [r.getMessage() for r in caplog.records if r.getMessage().startswith("reload:")]
    assert ["gone." in text for text in told] == [True, True, False]
    assert "nothing has changed on disk" in told[2]
