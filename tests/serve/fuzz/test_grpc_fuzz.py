"""Malformed calls over gRPC: refused in words, never INTERNAL or UNKNOWN, never a hang."""

from __future__ import annotations

import contextlib

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parnet_deploy.serve.protocol import messages
from tests.serve.fuzz import http2
from tests.serve.fuzz.conftest import INFER, Target, fuzzed
from tests.serve.fuzz.requests import NUMBERS
from tests.serve.fuzz.sockets import LIMIT_S, abandon, converse
from tests.serve.load.known import grpc_logits, grpc_request
from tests.serve.load.watch import look

pytestmark = pytest.mark.slow

HONEST = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.UNAVAILABLE,
}
UNARY = [method.name for method in messages.methods() if method.name != "ModelStreamInfer"]
STREAM = "/inference.GRPCInferenceService/ModelStreamInfer"


def ask(target: Target, path: str, content: bytes) -> bytes | None:
    """The answer's bytes; None if it was refused honestly."""
    call = target.channel.unary_unary(path).future(content, timeout=LIMIT_S)
    if call.exception() is not None:
        check_honest(call)
        return None
    answer: bytes = call.result()
    return answer


def check_honest(call: grpc.Call) -> None:
    """The call was refused with a reason, and not for a fault of the server."""
    assert call.code() in HONEST, (call.code(), call.details())
    assert (call.details() or "").strip()


@pytest.mark.parametrize("rpc", UNARY)
def test_any_bytes_as_message(target: Target, rpc: str) -> None:
    @fuzzed(25)
    @given(st.binary(max_size=60))
    def check(content: bytes) -> None:
        ask(target, f"/inference.GRPCInferenceService/{rpc}", content)

    check()


def test_flipped_and_truncated_requests(target: Target) -> None:
    good = grpc_request(target.known, 0, "f", encoded=True)

    @fuzzed(300)
    @given(st.integers(0, 120), st.integers(0, 255), st.integers(0, len(good)))
    def check(at: int, value: int, end: int) -> None:
        changed = bytearray(good)
        changed[at % len(good)] = value
        for content in (bytes(changed), bytes(changed)[:end]):
            answer = ask(target, INFER, content)
            if answer is not None:
                messages.ModelInferResponse.FromString(answer)

    check()


SHAPES = st.lists(st.sampled_from([n for n in NUMBERS if -(2**63) <= n < 2**63]), max_size=5)
PARAMETERS = st.dictionaries(
    st.sampled_from(["timeout", "priority", "classification", "binary_data", "x", ""]),
    st.one_of(
        st.tuples(st.just("int64_param"), st.integers(-(2**63), 2**63 - 1)),
        st.tuples(st.just("uint64_param"), st.integers(0, 2**64 - 1)),
        st.tuples(st.just("bool_param"), st.booleans()),
        st.tuples(st.just("string_param"), st.text(max_size=8)),
        st.tuples(st.just("double_param"), st.floats()),
    ),
    max_size=2,
)
CONTENTS = st.sampled_from(
    [
        *("bool_contents", "int_contents", "int64_contents", "uint_contents", "uint64_contents"),
        *("fp32_contents", "fp64_contents"),
    ]
)


@st.composite
def requests(draw: st.DrawFn, model: str) -> bytes:
    """An infer request of legal messages, whose parts do not fit together."""
    request = messages.ModelInferRequest(
        model_name=draw(st.sampled_from([model, model, model, "", "x", "\u00e9"])),
        model_version=draw(st.sampled_from(["", "", "1", "2", "x"])),
        id=draw(st.text(max_size=8)),
    )
    for name, (kind, value) in draw(PARAMETERS).items():
        setattr(request.parameters[name], kind, value)
    for _ in range(draw(st.integers(0, 3))):
        tensor = request.inputs.add(
            name=draw(st.sampled_from(["image", "encoded_image", "logits", ""])),
            datatype=draw(st.sampled_from(["FP32", "BYTES", "INT64", "BOOL", "FP16", "", "x"])),
            shape=draw(SHAPES | st.just([1, 3, 32, 32]) | st.just([1])),
        )
        for name, (kind, value) in draw(PARAMETERS).items():
            setattr(tensor.parameters[name], kind, value)
        if draw(st.booleans()):
            getattr(tensor.contents, draw(CONTENTS)).extend(draw(st.lists(st.just(1), max_size=4)))
        if draw(st.booleans()):
            tensor.contents.bytes_contents.extend(draw(st.lists(st.binary(max_size=9), max_size=3)))
    for _ in range(draw(st.integers(0, 2))):
        wanted = request.outputs.add(name=draw(st.sampled_from(["logits", "logits", "image", ""])))
        for name, (kind, value) in draw(PARAMETERS).items():
            setattr(wanted.parameters[name], kind, value)
    raws = st.binary(max_size=16) | st.just(bytes(12288)) | st.just(b"\xff\xff\xff\x7fabc")
    request.raw_input_contents.extend(draw(st.lists(raws, max_size=3)))
    content: bytes = request.SerializeToString()
    return content


def test_parts_that_do_not_fit(target: Target) -> None:
    @fuzzed(300)
    @given(requests(target.known.model))
    def check(content: bytes) -> None:
        answer = ask(target, INFER, content)
        if answer is not None:
            messages.ModelInferResponse.FromString(answer)

    check()


def test_a_stream_goes_on_after_what_it_refuses(target: Target) -> None:
    good = grpc_request(target.known, 2, "s", encoded=False)

    @fuzzed(25)
    @given(st.lists(requests(target.known.model) | st.binary(max_size=40), max_size=3))
    def check(bad: list[bytes]) -> None:
        call = target.channel.stream_stream(STREAM)(iter([*bad, good]), timeout=LIMIT_S)
        found = []
        with contextlib.suppress(grpc.RpcError):
            found.extend(call)
        if call.code() != grpc.StatusCode.OK:  # bytes that are no message end the stream
            check_honest(call)
            return
        assert len(found) == len(bad) + 1
        last = found[-1]
        answer = messages.ModelStreamInferResponse.FromString(last)
        assert answer.error_message == ""
        content = answer.infer_response.SerializeToString()
        assert target.known.is_right(2, grpc_logits(content)[1])

    check()


def test_an_unknown_method_is_not_there(target: Target) -> None:
    for path in ("/inference.GRPCInferenceService/Nothing", "/x/y", "/x", INFER + "x"):
        with pytest.raises(grpc.RpcError) as caught:
            target.channel.unary_unary(path)(b"", timeout=LIMIT_S)
        assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED


def test_a_message_beyond_the_limit_is_refused(target: Target) -> None:
    assert ask(target, INFER, bytes(4 * 2**20)) is None


def test_many_messages_beyond_the_limit_leave_no_traceback(target: Target) -> None:
    """gRPC ends such a call itself, sometimes just before we would."""
    for _ in range(150):
        assert ask(target, INFER, bytes(4 * 2**20)) is None


def test_clients_that_cancel_leave_nothing_behind(target: Target) -> None:
    before = look(target.running.pid).fds
    good = grpc_request(target.known, 0, "c", encoded=True)
    for _ in range(100):  # a connection may have 128 calls; one more is refused, as UNAVAILABLE
        future = target.channel.unary_unary(INFER).future(good, timeout=LIMIT_S)
        future.cancel()
    target.still_answers()
    assert look(target.running.pid).fds <= before + 1


RAW = {
    "HTTP/1.1": [b"POST /inference.GRPCInferenceService/ModelInfer HTTP/1.1\r\nHost: x\r\n\r\n"],
    "TLS": [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(600)],
    "preface only": [http2.PREFACE],
    "half a preface": [http2.PREFACE[:10]],
    "frame too large": [http2.opening(), b"\xff\xff\xff\x00\x00\x00\x00\x00\x01" + bytes(70_000)],
    "data for no stream": [http2.opening(), http2.frame(http2.DATA, 1, 7, b"abc")],
    "headers that are none": [http2.opening(), http2.frame(http2.HEADERS, 4, 1, b"\xff" * 40)],
    "even stream": [http2.opening(), http2.call(INFER, stream=2)],
    "no content type": [http2.opening(), http2.call(INFER, content_type=None)],
    "other content type": [http2.opening(), http2.call(INFER, content_type="application/json")],
    "GET": [http2.opening(), http2.call(INFER, **{":method": "GET"})],
    "no path": [http2.opening(), http2.call(INFER, **{":path": None})],
    "timeout that is none": [http2.opening(), http2.call(INFER, grpc_timeout="soon")],
    "timeout of nothing": [http2.opening(), http2.call(INFER, grpc_timeout="0n")],
    "unknown compression": [
        *(http2.opening(), http2.call(INFER, grpc_encoding="br")),
        http2.frame(http2.DATA, 1, 1, http2.message(b"abc", compressed=1)),
    ],
    "compressed without a name": [
        *(http2.opening(), http2.call(INFER)),
        http2.frame(http2.DATA, 1, 1, http2.message(b"abc", compressed=1)),
    ],
    "flag of no meaning": [
        *(http2.opening(), http2.call(INFER)),
        http2.frame(http2.DATA, 1, 1, http2.message(b"abc", compressed=7)),
    ],
    "message longer than said": [
        *(http2.opening(), http2.call(INFER)),
        http2.frame(http2.DATA, 1, 1, http2.message(b"abcdef", length=2)),
    ],
    "message shorter than said": [
        *(http2.opening(), http2.call(INFER)),
        http2.frame(http2.DATA, 1, 1, http2.message(b"abc", length=1000)),
    ],
    "message of 4 GiB": [
        *(http2.opening(), http2.call(INFER)),
        http2.frame(http2.DATA, 0, 1, http2.message(b"abc", length=2**32 - 1)),
    ],
    "end without a message": [http2.opening(), http2.call(INFER), http2.frame(http2.DATA, 1, 1)],
    "reset in the message": [
        *(http2.opening(), http2.call(INFER)),
        http2.frame(http2.DATA, 0, 1, http2.message(b"abc", length=1000)),
        http2.frame(http2.RST_STREAM, 0, 1, b"\x00\x00\x00\x08"),
    ],
    "a thousand resets": [
        http2.opening(),
        *(
            http2.call(INFER, stream=n) + http2.frame(http2.RST_STREAM, 0, n, b"\x00\x00\x00\x08")
            for n in range(1, 2001, 2)
        ),
    ],
    "pings": [http2.opening(), http2.frame(http2.PING, 0, 0, bytes(8)) * 500],
    "settings": [http2.opening(), http2.frame(http2.SETTINGS, 0, 0) * 500],
    "long metadata": [http2.opening(), http2.call(INFER, x_long="x" * 15_000)],
}


@pytest.mark.parametrize("name", RAW)
def test_frames_that_no_client_sends(target: Target, name: str) -> None:
    pieces = RAW[name]
    found = converse(target.running.grpc_port, pieces)
    for kind, _, _, payload in http2.frames(found.data):
        assert kind <= 9, "no HTTP/2"
        assert b"Traceback" not in payload
    abandon(target.running.grpc_port, pieces)


def test_any_bytes(target: Target) -> None:
    @fuzzed(60)
    @given(st.booleans(), st.lists(st.binary(max_size=120), max_size=4))
    def check(opened: bool, pieces: list[bytes]) -> None:
        start = [http2.opening()] if opened else []
        converse(target.running.grpc_port, [*start, *pieces])

    check()
