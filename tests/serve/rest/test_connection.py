"""HTTP connections: what is too large, too slow, or no HTTP, and clients that leave."""

from __future__ import annotations

import asyncio
import socket

import pytest
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from parnet_deploy.errors import ServeError
from parnet_deploy.serve.rest.answer import Answer
from parnet_deploy.serve.rest.app import Page
from parnet_deploy.serve.security.limits import Limits
from parnet_deploy.serve.security.token import Token
from tests.serve.wire import INFER, connected, json_body, logits_of, request, serve

QUICK_S = 0.05
ALIVE = "/v2/health/live"


async def check_alive(server) -> None:
    """The server still answers others."""
    async with connected(server) as http:
        assert (await http.ask(ALIVE)).status == 200


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS on a plain port
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/1.1\r\nbad header\r\n\r\n",
        b"GET / HTTP/1.1\r\nA: b\x00c\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"CONNECT / HTTP/1.1\r\n\r\n",
        b"GET http://[/ HTTP/1.1\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
)
def test_what_is_no_http_is_400_and_ends_the_connection(garbage) -> None:
    async def body(server, service):
        async with connected(server) as http:
            http.send(garbage)
            reply = await http.reply()
            assert 400 <= reply.status < 500
            assert reply.error
            if reply.status == 400:
                assert reply.headers["connection"] == "close"
                assert await http.ended() == b""
        await check_alive(server)

    serve(body)


@pytest.mark.parametrize("said", ["gzip, chunked", "identity", "x"])
def test_transfer_encodings_other_than_chunked_are_400(said) -> None:
    async def body(server, service):
        async with connected(server) as http:
            http.send(request(INFER, Transfer_Encoding=said) + b"2\r\n{}\r\n0\r\n\r\n")
            reply = await http.reply()
            assert (reply.status, "Transfer-Encoding: got" in reply.error) == (400, True)
            assert await http.ended() == b""
        assert service.entered == 0

    serve(body)


def test_a_broken_chunk_in_a_body_is_400() -> None:
    async def body(server, service):
        async with connected(server) as http:
            http.send(request(INFER, Transfer_Encoding="chunked") + b"zz\r\n")
            assert (await http.reply()).status == 400
            assert await http.ended() == b""
        assert service.entered == 0

    serve(body)


def test_too_many_headers_are_refused() -> None:
    async def body(server, service):
        many = {f"X-{n}": "1" for n in range(9)}
        async with connected(server) as http:
            assert (await http.ask(ALIVE, **many)).status == 200  # and Host: ten
            reply = await http.ask(ALIVE, **many, X_More="1")
            assert (reply.status, "more than 10" in reply.error) == (413, True)
            assert await http.ended() == b""

    serve(body, limits=Limits(headers=10))


@pytest.mark.parametrize(
    "head",
    [
        b"GET /" + b"x" * 3000,
        b"GET / HTTP/1.1\r\nA: " + b"x" * 3000,
        b"GET / HTTP/1.1\r\n" + b"x" * 3000,
        b"GET / HTTP/1.1\r\n" + b"A: xxxxxxxxxxxxxxxxxxx\r\n" * 100,
    ],
)
@pytest.mark.parametrize("piece", [100_000, 500])
def test_a_head_that_is_too_large_is_refused_before_it_ends(head, piece) -> None:
    async def body(server, service):
        async with connected(server) as http:
            for at in range(0, len(head), piece):
                http.send(head[at : at + piece])
                await http.writer.drain()
            reply = await http.reply()
            assert (reply.status, "more than 2000 bytes" in reply.error) == (413, True)
        await check_alive(server)

    serve(body, limits=Limits(head_bytes=2000))


def test_many_requests_at_once_on_one_connection_are_answered_in_order() -> None:
    async def body(server, service):
        async with connected(server) as http:
            http.send(b"".join(request(f"/v2/x{n}", method="GET") for n in range(300)))
            for n in range(300):
                assert f"/v2/x{n}:" in (await http.reply()).error

    serve(body, limits=Limits(head_bytes=2000))


def test_a_slow_head_is_408() -> None:
    async def body(server, service):
        async with connected(server) as http:
            http.send(b"GET / HTTP/1.1\r\nHo")
            reply = await http.reply()
            assert (reply.status, "head: not complete" in reply.error) == (408, True)
            assert await http.ended() == b""

    serve(body, limits=Limits(head_s=QUICK_S))


def test_a_connection_without_a_request_just_ends() -> None:
    async def body(server, service):
        async with connected(server) as http:
            assert await http.ended() == b""

    serve(body, limits=Limits(head_s=QUICK_S))


def test_a_slow_body_is_408_and_never_reaches_the_service() -> None:
    async def body(server, service):
        async with connected(server) as http:
            http.send(request(INFER, Content_Length="100") + b"{")
            reply = await http.reply()
            assert (reply.status, "body: not complete" in reply.error) == (408, True)
            assert await http.ended() == b""
        assert service.entered == 0
        await check_alive(server)

    serve(body, limits=Limits(body_s=QUICK_S))


def test_an_idle_connection_ends() -> None:
    async def body(server, service):
        async with connected(server) as http:
            assert (await http.ask(ALIVE)).status == 200
            assert await http.ended() == b""

    serve(body, limits=Limits(idle_s=QUICK_S))


def test_a_refused_client_that_sends_on_is_cut_off() -> None:
    async def body(server, service):
        async with connected(server) as http:
            http.send(request("/v2/nothing", Content_Length="1000000"))
            assert (await http.reply()).status == 404
            assert await http.ended() == b""

    serve(body, limits=Limits(linger_s=QUICK_S))


def test_a_client_that_does_not_read_is_cut_off() -> None:
    page = Page(make=lambda: Answer(body=bytes(50_000_000)))

    async def body(server, service):
        async with connected(server) as http:
            http.writer.transport.pause_reading()
            http.send(request("/big", method="GET"))
            (listener,) = server._rest
            connections = listener._state.connections
            while not connections:
                await asyncio.sleep(0)
            (connection,) = connections
            while connection in connections:
                await asyncio.sleep(0)
        await check_alive(server)

    serve(body, limits=Limits(write_s=QUICK_S), pages={"/big": page})


def test_one_connection_too_many_is_503() -> None:
    async def body(server, service):
        async with connected(server) as one, connected(server) as two:
            assert (await one.ask(ALIVE)).status == (await two.ask(ALIVE)).status == 200
            async with connected(server) as three:
                reply = await three.reply()
                assert (reply.status, reply.headers["retry-after"]) == (503, "1")
                assert await three.ended() == b""
            one.abort()
            while len(server._rest[0]._state.connections) > 1:
                await asyncio.sleep(0)
            await check_alive(server)

    serve(body, limits=Limits(connections=2))


@pytest.mark.parametrize(
    ("content", "kind", "what", "request_id"),
    [
        (b"GET\r\n\r\n", "invalid", "connection", None),
        (b"GET / HTTP/1.1\r\nA: " + b"x" * 3000, "too-large", "connection", None),
        (b"GET / HTTP/1.1\r\nHo", "too-slow", "connection", None),
        (
            request(INFER, X_Request_ID="mine", Content_Length="9") + b"{",
            "too-slow",
            f"POST {INFER}",
            "mine",
        ),
        (
            request(INFER, X_Request_ID="mine", Transfer_Encoding="chunked") + b"zz\r\n",
            "invalid",
            f"POST {INFER}",
            "mine",
        ),
    ],
)
def test_what_the_connection_refuses_is_counted_and_written_down(
    caplog, content, kind, what, request_id
) -> None:
    counted = []

    async def body(server, service):
        async with connected(server) as http:
            http.send(content)
            reply = await http.reply()
            assert reply.status >= 400
            assert await http.ended() == b""
            (record,) = [r for r in caplog.records if hasattr(r, "fields")]
            assert record.fields["what"] == what
            assert record.fields["status"] == kind
            assert record.fields["peer"] == http.address
            assert record.fields["id"] == reply.headers["x-request-id"]
            assert request_id in (None, reply.headers["x-request-id"])

    limits = Limits(head_bytes=2000, head_s=QUICK_S, body_s=QUICK_S)
    serve(body, limits=limits, on_refused=lambda *refused: counted.append(refused))
    assert counted == [("rest", kind)]


def test_a_connection_too_many_is_counted_and_written_down(caplog) -> None:
    counted = []

    async def body(server, service):
        async with connected(server) as one, connected(server) as two:
            assert (await one.ask(ALIVE)).status == 200
            assert (await two.reply()).headers["x-request-id"]
            (record,) = [r for r in caplog.records if hasattr(r, "fields")]
            assert record.fields["peer"] == two.address

    limits = Limits(connections=1)
    serve(body, limits=limits, on_refused=lambda *refused: counted.append(refused))
    assert counted == [("rest", "busy")]


def test_a_client_that_leaves_cancels_its_request(caplog) -> None:
    async def body(server, service):
        service.held.clear()
        async with connected(server) as http:
            http.send(request(INFER, json_body()))
            await service.until(lambda s: s.entered == 1)
        await service.until(lambda s: s.cancelled == 1)
        service.held.set()
        await check_alive(server)

    serve(body)
    assert not [r for r in caplog.records if r.levelname in ("WARNING", "ERROR")]


def test_a_client_that_leaves_while_it_sends_is_forgotten(caplog) -> None:
    async def body(server, service):
        async with connected(server) as http:
            http.send(request(INFER, Content_Length="1000") + b"{")
            (listener,) = server._rest
            while not listener._state.tasks:
                await asyncio.sleep(0)
        while listener._state.tasks:
            await asyncio.sleep(0)
        assert service.entered == 0
        await check_alive(server)

    serve(body)
    assert not [r for r in caplog.records if r.levelname in ("WARNING", "ERROR")]


def test_an_upgrade_is_overlooked() -> None:
    async def body(server, service):
        async with connected(server) as http:
            reply = await http.ask(ALIVE, Connection="Upgrade, HTTP2-Settings", Upgrade="h2c")
            assert reply.status == 200

    serve(body)


def test_http_1_0_is_answered_and_closed() -> None:
    async def body(server, service):
        async with connected(server) as http:
            http.send(b"GET /v2/health/live HTTP/1.0\r\n\r\n")
            assert (await http.reply()).status == 200
            assert await http.ended() == b""

    serve(body)


def test_a_uvicorn_that_large_bodies_would_hang_in_is_refused(monkeypatch) -> None:
    monkeypatch.delattr(HttpToolsProtocol, "_start_asgi_task")

    async def body(server, service):
        pytest.fail("it started")

    with pytest.raises(ServeError, match=r"uvicorn: got .*pip install 'parnet-deploy\[serve\]'"):
        serve(body)


def test_small_answers_do_not_wait_for_acknowledgements() -> None:
    async def body(server, service):
        async with connected(server) as http:
            content = json_body()
            assert logits_of(await http.ask(INFER, content)).shape == (2, 4)
            (connection,) = server._rest[0]._state.connections
            sock = connection.transport.get_extra_info("socket")
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)

    serve(body)


@pytest.mark.parametrize(
    ("name", "values", "status"),
    [
        ("Authorization", ("Bearer 0123456789abcdef", "Bearer wrong"), 401),
        ("Authorization", ("Bearer wrong", "Bearer 0123456789abcdef"), 401),
        ("Inference-Header-Content-Length", ("10", "12"), 400),
        ("Content-Encoding", ("gzip", "identity"), 400),
    ],
)
def test_two_headers_where_one_is_expected_are_refused(name, values, status) -> None:
    async def body(server, service):
        async with connected(server) as http:
            lines = [f"POST {INFER} HTTP/1.1", "Content-Length: 2"]
            if status != 401:
                lines.append("Authorization: Bearer 0123456789abcdef")
            lines += [f"{name}: {value}" for value in values]
            http.send("\r\n".join(lines).encode() + b"\r\n\r\n{}")
            reply = await http.reply()
            assert (reply.status, f"got 2 of {name.lower()}" in reply.error) == (status, True)
        assert service.entered == 0

    serve(body, token=Token("0123456789abcdef"))
