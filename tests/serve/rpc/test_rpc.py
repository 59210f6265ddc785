"""The gRPC shell over a fake service: every rpc, and what goes wrong."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import grpc
import grpc.aio
import numpy as np
import pytest

from parnet_deploy.errors import ServeError
from parnet_deploy.serve.protocol import messages
from parnet_deploy.serve.protocol.refusal import CODES, RefusedError
from parnet_deploy.serve.rpc import listener
from parnet_deploy.serve.security.limits import Limits
from parnet_deploy.serve.security.token import Token
from parnet_deploy.serve.server import process
from parnet_deploy.serve.server.options import ServerOptions
from parnet_deploy.serve.server.server import Server
from tests.serve import wire
from tests.serve.fuzz import http2
from tests.serve.wire import IMAGE, expected

OPEN = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]


class Client:
    """Calls by name, with the messages of the package."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.channel = channel

    def call(self, rpc: str, message=None, **more):
        request = messages.request_class(rpc)() if message is None else message
        content = request if isinstance(request, bytes) else request.SerializeToString()
        multi = self.channel.unary_unary(
            f"/{messages.SERVICE}/{rpc}",
            response_deserializer=messages.response_class(rpc).FromString,
        )
        return multi(content, **more)

    def stream(self, requests, **more):
        multi = self.channel.stream_stream(
            f"/{messages.SERVICE}/ModelStreamInfer",
            request_serializer=messages.ModelInferRequest.SerializeToString,
            response_deserializer=messages.ModelStreamInferResponse.FromString,
        )
        return multi(requests, **more)


@asynccontextmanager
async def client_of(server, credentials=None, options=()):
    target = server.grpc_target
    if credentials is None:
        channel = grpc.aio.insecure_channel(target, options=[*OPEN, *options])
    else:
        channel = grpc.aio.secure_channel(target, credentials, options=[*OPEN, *options])
    async with channel:
        yield Client(channel)


def serve(body, **options) -> None:
    """Run a test against gRPC alone, with a client at hand."""

    async def with_client(server, service):
        async with client_of(server) as client:
            await body(client, service)

    wire.serve(with_client, **{"port": None, "grpc_port": 0, **options})


def infer_request(image: np.ndarray = IMAGE, **more):
    request = messages.ModelInferRequest(model_name="toy", **more)
    request.inputs.add(name="image", datatype="FP32", shape=image.shape)
    request.raw_input_contents.append(image.tobytes())
    return request


def logits_of(response) -> np.ndarray:
    (output,) = response.outputs
    return np.frombuffer(response.raw_output_contents[0], np.float32).reshape(output.shape)


async def raw(server, *pieces: bytes) -> bytes:
    """Send frames on a connection of its own; what came until the call, or all, was ended."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.grpc_port)
    writer.write(http2.opening() + b"".join(pieces))
    data = b""
    while not any(
        kind == http2.GOAWAY or (kind == http2.HEADERS and flags & http2.END_STREAM)
        for kind, flags, _, _ in http2.frames(data)
    ):
        got = await reader.read(1 << 16)
        assert got, data
        data += got
    writer.close()
    return data


async def refusal(call) -> tuple[str, str]:
    with pytest.raises(grpc.aio.AioRpcError) as found:
        await call
    return found.value.code().name, found.value.details()


def test_every_question_has_its_answer() -> None:
    async def body(client, service):
        assert (await client.call("ServerLive")).live
        assert (await client.call("ServerReady")).ready
        named = {"name": "toy", "version": "1"}
        assert (await client.call("ModelReady", messages.ModelReadyRequest(**named))).ready
        assert (await client.call("ServerMetadata")).name == "parnet-deploy"
        found = await client.call("ModelMetadata", messages.ModelMetadataRequest(**named))
        assert list(found.inputs[0].shape) == [-1, 3, 8, 8]
        found = await client.call("ModelConfig", messages.ModelConfigRequest(**named))
        assert found.config.max_batch_size == 8
        assert (await client.call("ModelStatistics")).model_stats[0].name == "toy"
        assert (await client.call("RepositoryIndex")).models[0].state == "READY"
        service.ready = False
        assert not (await client.call("ServerReady")).ready
        only = messages.RepositoryIndexRequest(ready=True)
        assert not (await client.call("RepositoryIndex", only)).models

    serve(body)


@pytest.mark.parametrize(
    ("rpc", "code"),
    [
        ("RepositoryModelLoad", "UNAVAILABLE"),
        ("RepositoryModelUnload", "UNAVAILABLE"),
        ("SystemSharedMemoryStatus", None),
        ("SystemSharedMemoryRegister", "UNIMPLEMENTED"),
        ("SystemSharedMemoryUnregister", None),
        ("CudaSharedMemoryStatus", None),
        ("CudaSharedMemoryRegister", "UNIMPLEMENTED"),
        ("CudaSharedMemoryUnregister", None),
        ("TraceSetting", "UNIMPLEMENTED"),
        ("LogSettings", "UNIMPLEMENTED"),
    ],
)
def test_what_is_not_offered_says_so(rpc, code) -> None:
    async def body(client, service):
        if code is None:
            assert await client.call(rpc) == messages.Nothing()
        else:
            found, details = await refusal(client.call(rpc))
            assert found == code
            assert "not offered" in details
            assert ("SIGHUP, or --watch" in details) == (code == "UNAVAILABLE")

    serve(body)


def test_every_rpc_of_the_protocol_has_a_handler() -> None:
    from parnet_deploy.serve.rpc.documents import DOCUMENTS

    names = {method.name for method in messages.methods()}
    assert names == {*DOCUMENTS, "ModelInfer", "ModelStreamInfer"}
    assert len(names) == 20


def test_infer() -> None:
    async def body(client, service):
        call = client.call("ModelInfer", infer_request(id="mine"))
        response = await call
        assert (response.id, response.model_version) == ("mine", "1")
        np.testing.assert_array_equal(logits_of(response), expected())
        assert "x-request-id" in dict(tuple(await call.trailing_metadata()))
        arrival = service.arrivals[-1]
        assert (arrival.wire, arrival.left_s) == ("grpc", None)

    serve(body)


def test_the_deadline_of_a_call_is_what_is_left() -> None:
    async def body(client, service):
        await client.call("ModelInfer", infer_request(), timeout=1000.0)
        assert 0 < service.arrivals[-1].left_s < 1100.0  # gRPC rounds it up a little

    serve(body)


@pytest.mark.parametrize("kind", sorted(CODES))
def test_each_refusal_has_its_code(kind) -> None:
    async def body(client, service):
        service.refusal = RefusedError(kind, "what: got x, expected y.", retry_after_s=1.2)
        call = client.call("ModelInfer", infer_request(), metadata=(("x-request-id", "a-1"),))
        assert await refusal(call) == (CODES[kind].grpc, str(service.refusal))
        metadata = dict(tuple(await call.trailing_metadata()))
        assert metadata["x-request-id"] == "a-1"
        assert metadata.get("retry-after") == ("2" if CODES[kind].retry else None)

    serve(body)


def test_a_bug_is_internal_without_its_secrets(caplog) -> None:
    async def body(client, service):
        service.refusal = ZeroDivisionError("secret")
        code, details = await refusal(client.call("ModelInfer", infer_request()))
        assert code == "INTERNAL"
        assert "secret" not in details
        service.refusal = None
        await client.call("ModelInfer", infer_request())

    serve(body)
    assert [r.levelname for r in caplog.records if r.name == "parnet_deploy.serve"] == ["ERROR"]


@pytest.mark.parametrize("rpc", [method.name for method in messages.methods()][2:])
def test_bytes_that_are_no_message_are_invalid(rpc) -> None:
    async def body(client, service):
        if rpc == "ModelStreamInfer":
            return
        code, _ = await refusal(client.call(rpc, b"\xff\xff\xff"))
        assert code == "INVALID_ARGUMENT"

    serve(body)


def test_unknown_names_are_not_found_and_unknown_methods_unimplemented() -> None:
    async def body(client, service):
        other = messages.ModelMetadataRequest(name="other")
        assert (await refusal(client.call("ModelMetadata", other)))[0] == "NOT_FOUND"
        request = infer_request()
        request.model_name = "other"
        assert (await refusal(client.call("ModelInfer", request)))[0] == "NOT_FOUND"
        for method in ("/inference.GRPCInferenceService/No", "/a.B/C", "/x"):
            call = client.channel.unary_unary(method)(b"")
            assert (await refusal(call))[0] == "UNIMPLEMENTED"

    serve(body)


def test_a_path_that_is_not_utf8_harms_nobody_else(caplog) -> None:
    async def body(server, service):
        await raw(server, http2.call("/a\x80"), http2.frame(http2.DATA, 1, 1, http2.message(b"")))
        async with client_of(server) as client:
            assert (await client.call("ServerLive")).live
        assert not [r for r in caplog.records if r.name == "parnet_deploy.serve"]

    wire.serve(body, port=None, grpc_port=0)


SECRET = "sixteen-or-more-letters"


def test_the_token_is_asked_for_once_and_before_the_message() -> None:
    async def body(client, service):
        right, wrong = ("authorization", f"Bearer {SECRET}"), ("authorization", "Bearer other")
        await client.call("ModelInfer", infer_request(), metadata=(right,))
        for metadata in ((), (wrong,), (right, wrong), (wrong, right), (right, right)):
            call = client.call("ModelInfer", infer_request(), metadata=metadata)
            assert (await refusal(call))[0] == "UNAUTHENTICATED"
        assert service.entered == 1

    serve(body, token=Token(SECRET))


@pytest.mark.parametrize("sent", ["\xe2\x82\xac", "\xff", "\xc4\x80"])  # bytes, as latin-1
def test_a_token_of_any_bytes_is_only_wrong(sent) -> None:
    async def body(server, service):
        data = await raw(server, http2.call(INFER, authorization=f"Bearer {sent}"), ANNOUNCED)
        assert b"grpc-status\x0216" in data  # UNAUTHENTICATED

    wire.serve(body, port=None, grpc_port=0, token=Token(SECRET))


ANNOUNCED = http2.frame(http2.DATA, 0, 1, http2.message(b"abc", length=1000))
INFER = f"/{messages.SERVICE}/ModelInfer"


@pytest.mark.parametrize("path", [INFER, f"/{messages.SERVICE}/ServerLive", listener.CHECK])
def test_a_message_that_never_ends_is_refused(path) -> None:
    async def body(server, service):
        data = await raw(server, http2.call(path), ANNOUNCED)
        assert b"grpc-status\x014" in data  # DEADLINE_EXCEEDED
        assert b"message: got no whole one in 0.05 s" in data
        assert service.entered == 0

    wire.serve(body, port=None, grpc_port=0, limits=Limits(message_s=0.05))


@pytest.mark.parametrize("path", [INFER, f"/{messages.SERVICE}/ServerLive", listener.CHECK])
def test_a_call_that_ends_without_a_message_is_answered(path) -> None:
    async def body(server, service):
        data = await raw(server, http2.call(path), http2.frame(http2.DATA, http2.END_STREAM, 1))
        assert b"grpc-status\x013" in data  # INVALID_ARGUMENT
        assert b"message: got none, expected one" in data

    wire.serve(body, port=None, grpc_port=0)


def test_time_for_the_message_is_not_time_for_the_answer(monkeypatch) -> None:
    async def body(client, service):
        loop, timers = asyncio.get_running_loop(), []

        def call_later(delay_s, *what):
            timers.append((delay_s, original(delay_s, *what)))
            return timers[-1][1]

        original = loop.call_later
        monkeypatch.setattr(loop, "call_later", call_later)
        service.held.clear()
        call = asyncio.ensure_future(client.call("ModelInfer", infer_request()))
        await service.until(lambda s: s.entered == 1)
        (timer,) = (timer for delay_s, timer in timers if delay_s == 12.5)
        assert timer.cancelled()
        service.held.set()
        await call

    serve(body, limits=Limits(message_s=12.5))


def test_calls_on_one_connection_are_bounded() -> None:
    async def body(server, service):
        data = await raw(server, http2.call("/x"))
        (settings, *_) = (p for kind, flags, _, p in http2.frames(data) if kind == http2.SETTINGS)
        assert b"\x00\x03\x00\x00\x00\x07" in settings  # MAX_CONCURRENT_STREAMS

    wire.serve(body, port=None, grpc_port=0, limits=Limits(calls=7))


def test_a_message_over_the_limit_is_refused_also_when_compressed() -> None:
    async def body(client, service):
        image = np.zeros((1, 3, 200, 200), np.float32)
        for compression in (grpc.Compression.NoCompression, grpc.Compression.Gzip):
            call = client.call("ModelInfer", infer_request(image), compression=compression)
            assert (await refusal(call))[0] == "RESOURCE_EXHAUSTED"
        small = infer_request(np.zeros((1, 3, 8, 8), np.float32))
        await client.call("ModelInfer", small, compression=grpc.Compression.Gzip)

    serve(body, limits=Limits(body_bytes=100_000))


def test_a_cancelled_call_leaves_the_service() -> None:
    async def body(client, service):
        service.held.clear()
        call = client.call("ModelInfer", infer_request())
        await service.until(lambda s: s.entered == 1)
        call.cancel()
        await service.until(lambda s: s.cancelled == 1)

    serve(body)


def test_a_call_past_its_deadline_leaves_the_service() -> None:
    async def body(client, service):
        service.held.clear()
        call = client.call("ModelInfer", infer_request(), timeout=0.05)
        assert (await refusal(call))[0] == "DEADLINE_EXCEEDED"
        await service.until(lambda s: s.cancelled == s.entered)

    serve(body)


def test_a_stream_answers_in_order_and_goes_on_after_refusals() -> None:
    async def body(client, service):
        def requests():
            for n in range(100):
                request = infer_request(np.full((1, 3, 8, 8), n, np.float32), id=str(n))
                if n % 10 == 3:
                    request.model_name = "other"
                yield request

        n = 0
        async for answer in client.stream(requests()):
            assert answer.infer_response.id == str(n)
            if n % 10 == 3:
                assert "model other: not found" in answer.error_message
            else:
                assert answer.error_message == ""
                assert logits_of(answer.infer_response)[0, 0] == 192 * n
            n += 1
        assert n == 100

    serve(body)


def test_a_stream_is_not_read_further_than_its_limit() -> None:
    async def body(client, service):
        service.held.clear()
        sent = 0

        async def requests():
            nonlocal sent
            for n in range(10):
                sent += 1
                yield infer_request(id=str(n))

        call = client.stream(requests())
        await service.until(lambda s: s.entered == 3)
        # As many answers as are released; the fourth request enters only then.
        service.held.set()
        ids = [answer.infer_response.id async for answer in call]
        assert ids == [str(n) for n in range(10)]
        assert most_waiting[0] == 3

    most_waiting = [0]

    class Counting(wire.FakeService):
        waiting = 0

        async def infer(self, request, arrival):
            self.waiting += 1
            most_waiting[0] = max(most_waiting[0], self.waiting)
            try:
                return await super().infer(request, arrival)
            finally:
                self.waiting -= 1

    async def with_client(server, service):
        async with client_of(server) as client:
            await body(client, service)

    limits = Limits(stream_requests=3)
    wire.serve(with_client, Counting, port=None, grpc_port=0, limits=limits)


def test_a_cancelled_stream_cancels_its_requests() -> None:
    async def body(client, service):
        service.held.clear()
        call = client.stream(infer_request(id=str(n)) for n in range(5))
        await service.until(lambda s: s.entered == 5)
        call.cancel()
        await service.until(lambda s: s.cancelled == 5)

    serve(body)


def test_a_stream_that_is_cancelled_while_full_leaves_no_task() -> None:
    async def body(client, service):
        service.held.clear()
        call = client.stream(infer_request(id=str(n)) for n in range(5))
        await service.until(lambda s: s.entered == 2)
        (waiting,) = (task for task in asyncio.all_tasks() if "acquire" in repr(task.get_coro()))
        call.cancel()
        await service.until(lambda s: s.cancelled == 2)
        await asyncio.wait({waiting})  # or it is there until the end, which is a failure
        assert waiting.cancelled()

    serve(body, limits=Limits(stream_requests=2))


def test_the_standard_health_check() -> None:
    async def body(client, service):
        check = client.channel.unary_unary("/grpc.health.v1.Health/Check")
        name = messages.SERVICE.encode()
        for request in (b"", b"\n\x00", b"\n" + bytes([len(name)]) + name):
            assert await check(request) == b"\x08\x01"
        service.ready = False
        assert await check(b"") == b"\x08\x02"
        assert (await refusal(check(b"\n\x01x")))[0] == "NOT_FOUND"
        for bad in (b"\n", b"\n\x05x", b"\x10\x01", b"\n\x02\xff\xfe\x00"):
            assert (await refusal(check(bad)))[0] == "INVALID_ARGUMENT"

    serve(body)


def test_draining_lets_calls_finish_and_takes_no_more() -> None:
    async def body(server, service):
        service.held.clear()
        async with client_of(server) as client:
            call = client.call("ModelInfer", infer_request())
            await service.until(lambda s: s.entered == 1)
            closing = asyncio.ensure_future(server.close(wire.HANG_S))
            await service.until(lambda s: s.closed)
            service.held.set()
            np.testing.assert_array_equal(logits_of(await call), expected())
            await closing
            assert (await refusal(client.call("ServerLive")))[0] == "UNAVAILABLE"

    wire.serve(body, port=None, grpc_port=0)


def test_while_it_drains_new_connections_are_told_so() -> None:
    class Draining(wire.FakeService):
        def __init__(self) -> None:
            super().__init__()
            self.drained = asyncio.Event()

        async def close(self, drain_s: float = 0.0) -> None:
            await self.drained.wait()
            await super().close(drain_s)

    async def body(server, service):
        closing = asyncio.ensure_future(server.close(wire.HANG_S))
        async with client_of(server) as client:
            assert not (await client.call("ServerReady")).ready
            call = client.call("ModelInfer", infer_request())
            assert await refusal(call) == ("UNAVAILABLE", "server: it is stopping.")
            assert dict(tuple(await call.trailing_metadata()))["retry-after"] == "1"
        service.drained.set()
        await closing
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", server.grpc_port)

    wire.serve(body, Draining, port=None, grpc_port=0)


def test_a_server_that_ends_behind_our_back_is_replaced_on_the_same_port(caplog) -> None:
    async def body(server, service):
        for _ in range(2):
            await server._rpc._server.stop(None)
            async with client_of(server) as client:
                assert (await client.call("ServerLive", wait_for_ready=True)).live
        assert server._rpc.port == server.grpc_port
        assert not server.lost.is_set()

    wire.serve(body, port=None, grpc_port=0)
    found = [r for r in caplog.records if r.name == "parnet_deploy.serve"]
    assert [(r.levelname, "ended by itself" in r.message) for r in found] == [("ERROR", True)] * 2


async def break_for_good(server, monkeypatch) -> None:
    """gRPC's server ends, and its port cannot be had again."""

    async def fail() -> None:
        raise ServeError("port: got one in use.")

    monkeypatch.setattr(listener, "_PAUSES_S", (0.0, 0.0))
    monkeypatch.setattr(server._rpc, "_open", fail)
    await server._rpc._server.stop(None)


def test_a_port_that_cannot_be_had_again_makes_it_not_ready(caplog, monkeypatch) -> None:
    async def body(server, service):
        await break_for_good(server, monkeypatch)
        await server.lost.wait()
        assert not service.ready

    wire.serve(body, port=None, grpc_port=0)
    assert sum("got one in use" in r.message for r in caplog.records) == 2


def test_a_process_that_lost_its_port_ends_with_an_error(monkeypatch) -> None:
    monkeypatch.setattr(process, "keep_freed_memory", lambda: True)
    service, breaking = wire.FakeService(), []

    def on_ready(server) -> None:
        breaking.append(asyncio.ensure_future(break_for_good(server, monkeypatch)))

    options = ServerOptions(port=None, grpc_port=0)
    with pytest.raises(ServeError, match="broke for good"):
        process.serve_until_stopped(lambda: Server(service, options), on_ready=on_ready)
    assert service.closed
