"""What the messages of all gRPC calls together may take up."""

from __future__ import annotations

import asyncio

import grpc.aio
import numpy as np
import pytest

from parnet_deploy.serve.protocol import messages
from parnet_deploy.serve.protocol.refusal import RefusedError
from parnet_deploy.serve.rpc.receive import WINDOW_BYTES, Receiver
from parnet_deploy.serve.security.limits import Limits
from tests.serve import wire
from tests.serve.fuzz import http2
from tests.serve.rpc.test_rpc import client_of, infer_request, logits_of, raw, refusal, serve

INFER = f"/{messages.SERVICE}/ModelInfer"
LIVE = f"/{messages.SERVICE}/ServerLive"
WINDOW_UPDATE, INITIAL_WINDOW_SIZE = 0x8, 4
IMAGE = np.ones((1, 3, 100, 100), np.float32)  # 120 kB
ONE_TURN = Limits(body_bytes=1_000_000, all_bodies_bytes=1_000_000, message_s=wire.HANG_S)


def begun(stream: int, path: str = INFER) -> bytes:
    """A call that has sent some of a large message."""
    part = http2.message(b"abc", length=900_000)
    return http2.call(path, stream=stream) + http2.frame(http2.DATA, 0, stream, part)


def test_a_call_beyond_those_that_may_wait_is_refused() -> None:
    async def body(server, service):
        data = await raw(server, *(begun(stream) for stream in (1, 3, 5)))
        assert b"grpc-status\x0214" in data  # UNAVAILABLE
        assert b"retry-after\x011" in data
        assert b"calls: got 1 that wait for others to be received" in data
        assert service.entered == 0

    limits = Limits(body_bytes=1_000_000, all_bodies_bytes=WINDOW_BYTES, message_s=wire.HANG_S)
    wire.serve(body, port=None, grpc_port=0, limits=limits)


def test_flow_control_holds_a_call_that_waits_for_its_turn() -> None:
    async def body(server, service):
        reader, writer = await asyncio.open_connection("127.0.0.1", server.grpc_port)
        data = b""

        async def until(kind: int, stream: int) -> None:
            nonlocal data
            while not any(f[0] == kind and f[2] == stream for f in http2.frames(data)):
                got = await reader.read(1 << 16)
                assert got, data
                data += got

        def raised(stream: int) -> list[int]:
            return [
                int.from_bytes(payload, "big")
                for kind, _, its, payload in http2.frames(data)
                if kind == WINDOW_UPDATE and its == stream
            ]

        writer.write(http2.opening() + begun(1))
        await until(WINDOW_UPDATE, 1)
        writer.write(begun(3))
        empty = http2.frame(http2.DATA, http2.END_STREAM, 5, http2.message(b""))
        writer.write(http2.call(LIVE, stream=5) + empty)
        await until(http2.HEADERS, 5)  # one that needs no token has a turn of its own
        assert sum(raised(1)) > 800_000
        assert raised(3) == []
        for kind, flags, _, payload in http2.frames(data):
            if kind == http2.SETTINGS and not flags:
                pairs = [payload[at : at + 6] for at in range(0, len(payload), 6)]
                settings = {
                    int.from_bytes(p[:2], "big"): int.from_bytes(p[2:], "big") for p in pairs
                }
                assert settings.get(INITIAL_WINDOW_SIZE, WINDOW_BYTES) <= WINDOW_BYTES
        writer.write(http2.frame(http2.RST_STREAM, 0, 1, bytes([0, 0, 0, 8])))
        await until(WINDOW_UPDATE, 3)  # its turn has come
        writer.close()

    wire.serve(body, port=None, grpc_port=0, limits=ONE_TURN)


def test_many_calls_at_once_are_all_answered_in_turn() -> None:
    async def body(client, service):
        calls = [client.call("ModelInfer", infer_request(IMAGE)) for _ in range(50)]
        for call in calls:
            assert logits_of(await call)[0, 0] == 30_000

    serve(body, limits=Limits(body_bytes=2_500_000, all_bodies_bytes=50 * 130_000))  # two turns


def test_a_turn_that_does_not_come_is_busy_and_a_message_that_does_not_is_slow(
    monkeypatch,
) -> None:
    class Context:
        async def read(self):
            await asyncio.Event().wait()

    async def main() -> None:
        loop, expire = asyncio.get_running_loop(), []
        original = loop.call_later

        def call_later(delay_s, what):
            expire.append(what)
            return original(delay_s, what)

        monkeypatch.setattr(loop, "call_later", call_later)
        receiver = Receiver(ONE_TURN)
        reading, waiting = (asyncio.ensure_future(receiver.receive(Context())) for _ in range(2))
        while len(expire) < 2:
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        expire[1]()
        with pytest.raises(RefusedError, match="calls: got others that were being") as found:
            await waiting
        assert found.value.kind == "busy"
        expire[0]()
        with pytest.raises(RefusedError, match="message: got no whole one") as found:
            await reading
        assert found.value.kind == "too-slow"

        class Quick:
            async def read(self):
                return b"whole"

        assert await receiver.receive(Quick()) == b"whole"  # the turns were given back

    asyncio.run(main())


def test_messages_count_until_they_are_answered() -> None:
    async def body(client, service):
        service.held.clear()
        calls = [client.call("ModelInfer", infer_request(IMAGE)) for _ in range(2)]
        await service.until(lambda s: s.entered == 2)
        code, details = await refusal(client.call("ModelInfer", infer_request(IMAGE)))
        assert code == "UNAVAILABLE"
        assert details.startswith("bodies: got 36")
        requests = iter([infer_request(IMAGE, id="7")])
        (answer,) = [answer async for answer in client.stream(requests)]
        assert answer.error_message.startswith("bodies: got 36")
        assert answer.infer_response.id == "7"
        assert (await client.call("ServerLive")).live
        assert service.entered == 2
        service.held.set()
        for call in calls:
            await call
        await client.call("ModelInfer", infer_request(IMAGE))

    serve(body, limits=Limits(body_bytes=150_000, all_bodies_bytes=300_000))


def test_one_of_the_largest_fits_also_where_all_together_may_have_less() -> None:
    async def body(client, service):
        assert logits_of(await client.call("ModelInfer", infer_request(IMAGE)))[0, 0] == 30_000

    serve(body, limits=Limits(body_bytes=150_000, all_bodies_bytes=100_000))


def test_streams_are_bounded_over_all_connections() -> None:
    async def body(server, service):
        async with client_of(server) as one, client_of(server) as other:
            first = one.stream(None)
            await first.write(infer_request(id="1"))
            assert (await first.read()).infer_response.id == "1"
            second = other.stream(None)  # a write after the refusal can hide it in this client
            with pytest.raises(grpc.aio.AioRpcError) as found:
                await second.read()
            assert found.value.code() is grpc.StatusCode.UNAVAILABLE
            assert found.value.details().startswith("streams: got 2 of all clients together")
            trailing = dict(found.value.trailing_metadata())
            assert trailing["retry-after"] == "1"
            assert trailing["x-request-id"]
            await first.done_writing()
            assert await first.read() is grpc.aio.EOF
            third = other.stream(iter([infer_request(id="3")]))
            assert [answer.infer_response.id async for answer in third] == ["3"]

    wire.serve(body, port=None, grpc_port=0, limits=Limits(streams=1))
