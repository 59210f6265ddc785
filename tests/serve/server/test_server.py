"""The server as a whole: how it starts, drains and ends, without a process of its own."""

from __future__ import annotations

import asyncio
import socket

import numpy as np
import pytest

from parnet_deploy.errors import EngineLoadError, ServeError
from parnet_deploy.serve.server.options import ServerOptions
from parnet_deploy.serve.server.server import Server
from tests.serve import wire
from tests.serve.fake_service import FakeService
from tests.serve.wire import HANG_S, INFER, connected, expected, json_body, logits_of, request


def test_it_says_where_it_listens() -> None:
    async def body(server, service):
        assert server.url == f"http://127.0.0.1:{server.port}"
        assert server.grpc_target == f"127.0.0.1:{server.grpc_port}"
        assert len({server.port, server.grpc_port, server.metrics_port}) == 3

    wire.serve(body, grpc_port=0, metrics_port=0, metrics=lambda: (b"", "text/plain"))


def test_ipv6() -> None:
    async def main() -> None:
        try:
            socket.create_server(("::1", 0), family=socket.AF_INET6).close()
        except OSError:
            pytest.skip("needs IPv6 on the loopback interface")
        async with Server(FakeService(), ServerOptions(host="::1", port=0, grpc_port=0)) as server:
            assert server.url == f"http://[::1]:{server.port}"
            assert server.grpc_target == f"[::1]:{server.grpc_port}"
            reader, writer = await asyncio.open_connection("::1", server.port)
            writer.write(b"GET /v2 HTTP/1.1\r\nConnection: close\r\n\r\n")
            assert (await reader.read()).startswith(b"HTTP/1.1 200")
            writer.close()

    asyncio.run(asyncio.wait_for(main(), HANG_S))


@pytest.mark.parametrize("which", ["port", "grpc_port", "metrics_port"])
def test_a_port_in_use_is_named_and_nothing_is_left_open(which) -> None:
    options = {"port": 0, "grpc_port": 0, "metrics_port": 0}

    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            number = taken.getsockname()[1]
            service = FakeService()
            settings = ServerOptions(**{**options, which: number})
            server = Server(service, settings, metrics=lambda: (b"", "text/plain"))
            option = which.replace("_", "-")
            with pytest.raises(ServeError, match=rf"{number}.*--{option}, 0 for any"):
                await server.start()
            assert not service.started
            assert service.closed
            for port in {server.port, server.metrics_port} - {None, number}:
                with pytest.raises(ConnectionRefusedError):
                    await asyncio.open_connection("127.0.0.1", port)

    asyncio.run(asyncio.wait_for(main(), HANG_S))


def test_while_models_are_opened_it_is_live_and_not_ready() -> None:
    async def main() -> None:
        service = FakeService()
        opening, opened = asyncio.Event(), asyncio.Event()
        service.ready = False

        async def start() -> None:
            opening.set()
            await opened.wait()
            service.ready = True

        service.start = start
        server = Server(service, ServerOptions(port=0, grpc_port=None))
        starting = asyncio.ensure_future(server.start())
        await opening.wait()
        async with connected(server) as http:
            assert (await http.ask("/v2/health/live")).status == 200
            assert (await http.ask("/v2/health/ready")).status == 400
            opened.set()
            await starting
            assert (await http.ask("/v2/health/ready")).status == 200
        await server.close(0.0)

    asyncio.run(asyncio.wait_for(main(), HANG_S))


def test_a_model_that_cannot_be_opened_ends_it() -> None:
    async def main() -> None:
        service = FakeService()

        async def start() -> None:
            raise EngineLoadError("engine: got none.")

        service.start = start
        server = Server(service, ServerOptions(port=0, grpc_port=0))
        with pytest.raises(EngineLoadError):
            await server.start()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", server.port)
        assert service.closed

    asyncio.run(asyncio.wait_for(main(), HANG_S))


@pytest.mark.parametrize("with_grpc", [False, True])
def test_closing_finishes_what_is_there_and_says_that_it_takes_no_more(with_grpc) -> None:
    async def body(server, service):
        service.held.clear()
        async with connected(server) as busy, connected(server) as idle, connected(server) as mute:
            assert (await idle.ask("/v2")).status == (await mute.ask("/v2")).status == 200
            busy.send(request(INFER, json_body()))
            await service.until(lambda s: s.entered == 1)
            closing = asyncio.ensure_future(server.close(HANG_S))
            await service.until(lambda s: s.closed)
            reply = await idle.ask(INFER, json_body())
            assert (reply.status, reply.headers["retry-after"]) == (503, "1")
            assert reply.headers["connection"] == "close"
            assert await idle.ended() == b""
            async with connected(server) as new:
                reply = await new.ask("/v2/health/ready")
                assert (reply.status, reply.json()) == (400, {"ready": False})
                assert reply.headers["connection"] == "close"
                assert await new.ended() == b""
            service.held.set()
            reply = await busy.reply()
            np.testing.assert_allclose(logits_of(reply), expected(), rtol=1e-6)
            assert reply.headers["connection"] == "close"
            await closing
            assert await mute.ended() == b""
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection("127.0.0.1", server.port)

    wire.serve(body, grpc_port=0 if with_grpc else None)


def test_closing_does_not_wait_for_those_who_keep_asking() -> None:
    async def body(server, service):
        service.held.clear()
        async with connected(server) as busy, connected(server) as late:
            busy.send(request(INFER, json_body()))
            await service.until(lambda s: s.entered == 1)
            closing = asyncio.ensure_future(server.close(0.0))
            await service.until(lambda s: s.closed)
            late.send(request(INFER, Content_Length="100") + b"{")  # and no more of it
            await closing
            assert await late.ended() == b""

    wire.serve(body)


def test_closing_ends_what_takes_too_long() -> None:
    async def body(server, service):
        service.held.clear()
        async with connected(server) as http:
            http.send(request(INFER, json_body()))
            await service.until(lambda s: s.entered == 1)
            await server.close(0.0)
            assert await http.ended() == b""
            assert service.cancelled == 1

    wire.serve(body, grpc_port=0)


def test_closing_twice_is_fine() -> None:
    async def body(server, service):
        await server.close()
        await server.close()

    wire.serve(body, grpc_port=0)


def test_grpc_is_stopped_by_one_at_a_time_and_the_last_decides() -> None:
    """Two ``stop`` of gRPC that overlap end the process, now and then."""

    async def body(server, service):
        rpc, running, graces = server._rpc, [], []
        real = rpc._server

        class Watched:
            async def stop(self, grace_s):
                assert not running
                running.append(grace_s)
                graces.append(grace_s)
                try:
                    if grace_s:
                        await asyncio.Event().wait()
                finally:
                    running.clear()

        rpc._server = Watched()
        first = asyncio.ensure_future(rpc.close(HANG_S))
        while not running:
            await asyncio.sleep(0)
        await asyncio.gather(rpc.close(0.0), rpc.close(0.0), first)
        assert (graces[0], graces[-1], running) == (HANG_S, 0.0, [])
        rpc._server = real

    wire.serve(body, grpc_port=0)
