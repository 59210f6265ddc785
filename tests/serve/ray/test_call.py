"""The handlers of the gRPC wire behind Ray's context: statuses, metadata, streams."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import numpy as np
import pytest

from parnet_deploy.serve.protocol import messages
from parnet_deploy.serve.protocol.refusal import RefusedError
from parnet_deploy.serve.ray.call import RayCalls, method_path
from parnet_deploy.serve.rpc.health import CHECK
from parnet_deploy.serve.rpc.listener import Handlers
from parnet_deploy.serve.security.limits import Limits
from parnet_deploy.serve.security.token import Token
from parnet_deploy.serve.shells.shell import Shell
from tests.serve.fake_service import MODEL, FakeService

SECRET = "a" * 32
BODY_BYTES = 10_000


class Context:
    """What of ``RayServegRPCContext`` is used."""

    def __init__(self, *metadata: tuple[str, str]) -> None:
        self.metadata, self.code, self.details = metadata, None, ""
        self.trailing: dict[str, str] = {}

    def invocation_metadata(self) -> Any:
        return self.metadata

    def peer(self) -> str:
        return "ipv4:127.0.0.1:4000"

    def set_code(self, code: grpc.StatusCode) -> None:
        self.code = code

    def set_details(self, details: str) -> None:
        self.details = details

    def set_trailing_metadata(self, metadata: Any) -> None:
        self.trailing = dict(metadata)


def make_calls(service: FakeService | None = None, token: Token | None = None) -> RayCalls:
    handlers = Handlers(Shell(service or FakeService()), token, Limits())
    return RayCalls(handlers, body_bytes=BODY_BYTES, replica="r1")


def request(value: float = 1.0, *, model: str = MODEL, id: str = "") -> bytes:
    message = messages.ModelInferRequest(model_name=model, id=id)
    message.inputs.add(name="image", datatype="FP32", shape=[1, 3, 8, 8])
    message.raw_input_contents.append(np.full((1, 3, 8, 8), value, np.float32).tobytes())
    content: bytes = message.SerializeToString()
    return content


def ask(method: str, content: bytes, context: Context, **more: Any) -> bytes:
    """The answer's bytes; empty ones if it was refused."""

    async def run() -> bytes:
        calls = make_calls(**more)
        return (await calls.unary(method, content, context)).SerializeToString()

    return asyncio.run(run())


def test_an_answer_is_the_wires_own_and_names_its_replica() -> None:
    context = Context(("x-request-id", "mine"))
    found = messages.ModelInferResponse.FromString(
        ask(method_path("ModelInfer"), request(2.0, id="7"), context)
    )
    assert found.id == "7"
    logits = np.frombuffer(found.raw_output_contents[0], np.float32)
    assert logits.tolist() == [384.0, 768.0, 1152.0, 1536.0]
    assert context.code is None
    assert context.trailing == {"x-request-id": "mine", "x-parnet-replica": "r1"}


@pytest.mark.parametrize("rpc", [method.name for method in messages.methods()])
def test_every_rpc_has_an_answer(rpc: str) -> None:
    if rpc == "ModelStreamInfer":
        return  # see below
    context = Context()
    content = request() if rpc == "ModelInfer" else b""
    answer = ask(method_path(rpc), content, context)
    if context.code is None:
        messages.response_class(rpc).FromString(answer)
    else:
        assert answer == b""
        assert context.code.name in ("NOT_FOUND", "UNAVAILABLE", "UNIMPLEMENTED")
        assert context.details


@pytest.mark.parametrize(
    ("content", "code", "details"),
    [
        (request(model="other"), "NOT_FOUND", "model other: not found"),
        (b"\xff\xff", "INVALID_ARGUMENT", "expected protobuf"),
        (b"x" * (BODY_BYTES + 1), "RESOURCE_EXHAUSTED", "expected at most 10000"),
    ],
)
def test_a_refusal_keeps_its_class_and_words(content: bytes, code: str, details: str) -> None:
    context = Context()
    assert ask(method_path("ModelInfer"), content, context) == b""
    assert context.code == getattr(grpc.StatusCode, code)
    assert details in context.details


def test_a_refusal_that_may_be_tried_again_says_when() -> None:
    service, context = FakeService(), Context()
    service.refusal = RefusedError("busy", "queue: full.", retry_after_s=1.2)
    ask(method_path("ModelInfer"), request(), context, service=service)
    assert context.code == grpc.StatusCode.UNAVAILABLE
    assert context.trailing["retry-after"] == "2"


def test_a_bug_is_internal_and_shows_nothing() -> None:
    service, context = FakeService(), Context()
    service.refusal = ZeroDivisionError("secret")
    ask(method_path("ModelInfer"), request(), context, service=service)
    assert context.code == grpc.StatusCode.INTERNAL
    assert "secret" not in context.details


@pytest.mark.parametrize("sent", [(), (("authorization", "Bearer wrong"),)])
def test_without_the_token_nothing_is_answered_but_health(sent: Any) -> None:
    token = Token(SECRET)
    context = Context(*sent)
    assert ask(method_path("ModelInfer"), request(), context, token=token) == b""
    assert context.code == grpc.StatusCode.UNAUTHENTICATED
    for method in (method_path("ServerReady"), CHECK):
        context = Context(*sent)
        assert ask(method, b"", context, token=token)
        assert context.code is None


def test_with_the_token_all_is_answered() -> None:
    context = Context(("authorization", f"Bearer {SECRET}"))
    assert ask(method_path("ModelInfer"), request(), context, token=Token(SECRET))
    assert context.code is None


def test_a_method_that_is_not_there() -> None:
    context = Context()
    assert ask("/inference.GRPCInferenceService/Nothing", b"", context) == b""
    assert context.code == grpc.StatusCode.UNIMPLEMENTED


async def stream(calls: RayCalls, contents: list[bytes], context: Context) -> list[Any]:
    async def sent() -> AsyncIterator[bytes]:
        for content in contents:
            yield content

    return [
        messages.ModelStreamInferResponse.FromString(answer.SerializeToString())
        async for answer in calls.stream(method_path("ModelStreamInfer"), sent(), context)
    ]


def test_a_stream_answers_in_order_and_goes_on_after_a_refusal() -> None:
    contents = [request(id="0"), request(model="other", id="1"), b"\xff\xff", request(id="3")]
    context = Context()
    found = asyncio.run(stream(make_calls(), contents, context))
    assert [answer.infer_response.id for answer in found] == ["0", "1", "", "3"]
    assert [bool(answer.error_message) for answer in found] == [False, True, True, False]
    assert context.code is None
    assert context.trailing["x-parnet-replica"] == "r1"


def test_a_message_of_a_stream_over_the_limit_ends_it() -> None:
    service, context = FakeService(), Context()
    contents = [request(id="0"), b"x" * (BODY_BYTES + 1), request(id="2")]
    found = asyncio.run(stream(make_calls(service), contents, context))
    assert [answer.infer_response.id for answer in found] in ([], ["0"])  # as gRPC itself does it
    assert service.entered <= 1
    assert context.code == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert f"got {BODY_BYTES + 1} bytes, expected at most {BODY_BYTES}" in context.details
    assert context.trailing["x-parnet-replica"] == "r1"


def test_a_stream_without_the_token() -> None:
    context = Context()
    assert asyncio.run(stream(make_calls(token=Token(SECRET)), [request()], context)) == []
    assert context.code == grpc.StatusCode.UNAUTHENTICATED


def test_a_stream_that_nobody_reads_any_more_is_cancelled() -> None:
    async def run() -> None:
        service = FakeService()
        calls = make_calls(service)
        gone = asyncio.Event()

        async def sent() -> AsyncIterator[bytes]:
            yield request()
            service.held.clear()
            yield request()
            await gone.wait()

        answers = calls.stream(method_path("ModelStreamInfer"), sent(), Context())
        await anext(answers)
        await service.until(lambda found: found.entered == 2)
        await answers.aclose()
        await service.until(lambda found: found.cancelled == 1)

    asyncio.run(run())
