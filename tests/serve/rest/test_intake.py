"""Large bodies: received past the parser, into aligned memory, and what may go wrong on the way."""

from __future__ import annotations

import asyncio
import gzip
import socket
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parnet_deploy.serve.protocol.refusal import RefusedError
from parnet_deploy.serve.rest.intake import READ_BYTES, LargeBody, new_scratch
from parnet_deploy.serve.rest.listener import RestListener
from parnet_deploy.serve.security.limits import Limits
from parnet_deploy.serve.security.token import Token
from tests.serve.wire import (
    HANG_S,
    INFER,
    Connection,
    binary_body,
    connected,
    expected,
    json_body,
    logits_of,
    request,
    serve,
)

LARGE = np.random.default_rng(3).random((60, 3, 32, 32), np.float32)  # 720 KiB


@given(st.integers(1, 3000), st.integers(0, 3000), st.integers(0, 200))
def test_the_tensor_behind_the_json_is_aligned(length, header_length, first) -> None:
    body = LargeBody(length, min(header_length, length))
    content = np.random.default_rng(length).integers(0, 256, length, np.uint8).tobytes()
    body.add(content[:first])
    scratch = new_scratch()
    while not body.is_complete:
        free = body.free(scratch)
        count = min(len(free), 100)
        free[:count] = content[body.filled : body.filled + count]
        body.advance(count)
    assert bytes(body.content) == content
    behind = np.frombuffer(body.content, np.uint8)[min(header_length, length) :]
    assert len(behind) == 0 or behind.__array_interface__["data"][0] % 64 == 0


def test_a_large_tensor_arrives_whole_and_aligned() -> None:
    async def body(server, service):
        async with connected(server) as http:
            for text in ("", "x", "xy", "xyz"):
                content, length = binary_body(LARGE, id=text)
                reply = await http.ask(INFER, content, Inference_Header_Content_Length=length)
                np.testing.assert_array_equal(logits_of(reply), expected(LARGE))
                data = service.requests[-1].inputs[0].data
                assert data.flags.aligned
                assert not data.flags.writeable

    serve(body)


def test_a_body_is_not_read_before_it_is_asked_for() -> None:
    """Or all of it is parsed and copied where the loop reads several times in one go: uvloop's."""

    async def body(server, service):
        content, length = binary_body(LARGE)
        async with connected(server) as http:
            connection = await connection_of(server)
            whole = request(INFER, content, Inference_Header_Content_Length=length)
            connection.data_received(whole[:READ_BYTES])  # the application has not run yet
            assert connection.flow.read_paused
            http.send(whole[READ_BYTES:])
            np.testing.assert_array_equal(logits_of(await http.reply()), expected(LARGE))
            assert not connection.flow.read_paused
            assert service.requests[-1].inputs[0].data.flags.aligned

    serve(body)


@pytest.mark.parametrize("piece", [1 << 20, 65_537, 10_000])
def test_however_it_is_cut_and_whatever_comes_behind(piece) -> None:
    async def body(server, service):
        content, length = binary_body(LARGE)
        whole = request(INFER, content, Inference_Header_Content_Length=length)
        stream = whole + request("/v2", method="GET") + whole + whole
        async with connected(server) as http:
            for at in range(0, len(stream), piece):
                http.send(stream[at : at + piece])
                if piece < 1 << 20:
                    await http.writer.drain()
            np.testing.assert_array_equal(logits_of(await http.reply()), expected(LARGE))
            assert (await http.reply()).json()["name"] == "parnet-deploy"
            for _ in range(2):
                np.testing.assert_array_equal(logits_of(await http.reply()), expected(LARGE))

    serve(body)


def test_large_json_and_compressed_bodies() -> None:
    async def body(server, service):
        async with connected(server) as http:
            content = json_body(LARGE)
            assert len(content) > 2 * READ_BYTES
            np.testing.assert_allclose(
                logits_of(await http.ask(INFER, content)), expected(LARGE), rtol=1e-5
            )
            packed = gzip.compress(content)
            assert len(packed) > 2 * READ_BYTES
            reply = await http.ask(INFER, packed, Content_Encoding="gzip")
            np.testing.assert_allclose(logits_of(reply), expected(LARGE), rtol=1e-5)

    serve(body)


@pytest.mark.parametrize("said", ["0", "1", "999999999", "99999999999999999999", "x", "-1", ""])
def test_a_header_length_that_lies_is_refused(said) -> None:
    async def body(server, service):
        content, _ = binary_body(LARGE)
        async with connected(server) as http:
            reply = await http.ask(INFER, content, Inference_Header_Content_Length=said)
            assert reply.status == 400
            assert (await http.ask("/v2")).status == 200

    serve(body)


def test_a_large_body_of_a_refused_request_is_let_pass() -> None:
    async def body(server, service):
        content, length = binary_body(LARGE)
        async with connected(server) as http:
            http.send(request("/v2/none", content))
            assert (await http.reply()).status == 401
            http.send(request("/v2/health/live", content))
            assert (await http.reply()).status == 405
            reply = await http.ask(
                INFER,
                content,
                Inference_Header_Content_Length=length,
                Authorization="Bearer 0123456789abcdef",
            )
            np.testing.assert_array_equal(logits_of(reply), expected(LARGE))

    serve(body, token=Token("0123456789abcdef"))


async def connection_of(server):
    (listener,) = server._rest
    while not listener._state.connections:
        await asyncio.sleep(0)
    (connection,) = listener._state.connections
    return connection


@pytest.mark.parametrize(("path", "status"), [(INFER, 401), ("/v2/none", 401)])
@pytest.mark.parametrize("sent", [0, 300_000])
def test_nothing_is_kept_of_the_body_of_a_refused_request(path, status, sent) -> None:
    async def body(server, service):
        async with connected(server) as http:
            connection = await connection_of(server)
            http.send(request(path, Content_Length="1000000"))
            http.send(bytes(sent))
            assert (await http.reply()).status == status
            http.send(bytes(1_000_000 - sent))
            assert (await http.ask("/v2/health/live")).status == 200
            assert connection.large_body is None
            http.send(request(path, Content_Length="1000000") + bytes(500_000))
            assert (await http.reply()).status == status
            assert connection.large_body is None
            assert len(connection.cycle.body) == 0

    serve(body, token=Token("0123456789abcdef"))


def test_a_body_that_was_begun_is_dropped_when_it_is_refused() -> None:
    async def body(server, service):
        async with connected(server) as http:
            connection = await connection_of(server)
            http.send(request(INFER, Content_Length="1000000") + bytes(500_000))
            while connection.large_body is None or connection.large_body.filled < 500_000:
                await asyncio.sleep(0)
            large = connection.large_body
            connection._refuse(RefusedError("too-slow", "body: not complete."))
            assert (await http.reply()).status == 408
            assert len(large.content) == 0
            assert connection.cycle.large_body is None

    serve(body)


def test_what_comes_of_a_dropped_body_is_counted() -> None:
    large = LargeBody(3 * READ_BYTES, 0)
    large.advance(READ_BYTES)
    large.discard()
    for _ in range(2):
        assert not large.is_complete
        large.advance(len(large.free(new_scratch())))
    assert large.is_complete


def test_a_large_body_that_stops_coming_is_408() -> None:
    async def body(server, service):
        async with connected(server) as http:
            http.send(request(INFER, Content_Length="1000000") + bytes(500_000))
            assert (await http.reply()).status == 408
            assert await http.ended() == b""
        assert service.entered == 0

    serve(body, limits=Limits(body_s=0.05, body_rate_bytes_s=1e9))


def test_a_client_that_leaves_within_a_large_body_is_forgotten(caplog) -> None:
    async def body(server, service):
        async with connected(server) as http:
            http.send(request(INFER, Content_Length="1000000") + bytes(500_000))
            await http.writer.drain()
        (listener,) = server._rest
        async with connected(server) as http:
            assert (await http.ask("/v2")).status == 200
        assert service.entered == 0
        await server.close(0.0)
        assert not listener._state.tasks

    serve(body)
    assert not [r for r in caplog.records if r.levelname in ("WARNING", "ERROR")]


@pytest.mark.parametrize("chunked", [False, True])
def test_bodies_of_all_connections_together_are_bounded(chunked) -> None:
    async def body(server, service):
        service.held.clear()
        content, length = binary_body(LARGE)
        headers = {"Inference_Header_Content_Length": length}
        whole = request(INFER, content, **headers)
        async with connected(server) as one, connected(server) as two:
            one.send(whole)
            await service.until(lambda s: s.entered == 1)
            if chunked:
                two.send(request(INFER, Transfer_Encoding="chunked", **headers))
                two.send(b"%x\r\n" % len(content) + content + b"\r\n0\r\n\r\n")
            else:
                two.send(whole)
            reply = await two.reply()
            assert (reply.status, reply.headers["retry-after"]) == (503, "1")
            assert "of all clients together" in reply.error
            service.held.set()
            np.testing.assert_array_equal(logits_of(await one.reply()), expected(LARGE))
            one.send(whole)
            np.testing.assert_array_equal(logits_of(await one.reply()), expected(LARGE))
            connection = next(iter(server._rest[0]._state.connections))
        while server._rest[0]._state.connections:
            await asyncio.sleep(0)
        assert connection.budget.taken == 0
        assert service.entered == 2

    serve(body, limits=Limits(all_bodies_bytes=1_000_000))


def test_bodies_of_clients_that_leave_are_not_counted_any_more() -> None:
    async def body(server, service):
        service.held.clear()
        first = request(INFER, json_body())
        for content in (
            request(INFER, Content_Length="500000") + bytes(300_000),
            first + request(INFER, json_body()),
            first + request(INFER, Content_Length="900") + bytes(800),
        ):
            async with connected(server) as http:
                connection = await connection_of(server)
                http.send(content)
                while not connection.budget.taken:
                    await asyncio.sleep(0)
            while server._rest[0]._state.connections or server._rest[0]._state.tasks:
                await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert connection.budget.taken == 0

    serve(body)


async def echo(scope, receive, send) -> None:
    """An ASGI application that sends the body back."""
    content = b""
    while True:
        message = await receive()
        content += message["body"]
        if not message["more_body"]:
            break
    headers = [(b"content-length", b"%d" % len(content))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": content})


def echoed_wrongly(seed: int, bodies: int) -> int:
    """Serve on an event loop of its own and ask it; answers that are not what was sent."""

    async def ask(port: int, lane: int) -> int:
        random = np.random.default_rng([seed, lane])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        http, wrong = Connection(reader, writer), 0
        for _ in range(bodies):
            content = random.bytes(int(random.integers(1, 50_000)))
            wrong += (await http.ask("/", content)).body != content
        http.abort()
        return wrong

    async def main() -> int:
        sock = socket.create_server(("127.0.0.1", 0))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener = RestListener(echo, sock)
        await listener.start()
        asked = asyncio.gather(*(ask(sock.getsockname()[1], lane) for lane in range(4)))
        wrong = await asyncio.wait_for(asked, HANG_S)
        await listener.close()
        return sum(wrong)

    return asyncio.run(main())


def test_servers_on_two_threads_do_not_mix_their_bodies() -> None:
    with ThreadPoolExecutor(2) as threads:
        assert list(threads.map(echoed_wrongly, range(2), [400, 400])) == [0, 0]


def test_servers_read_into_memory_of_their_own() -> None:
    async def body(server, service):
        async def other(second, _):
            buffers = [
                np.frombuffer(one._rest[0]._make().get_buffer(-1), np.uint8)
                for one in (server, second)
            ]
            assert not np.shares_memory(*buffers)

        await asyncio.to_thread(serve, other)

    serve(body)
