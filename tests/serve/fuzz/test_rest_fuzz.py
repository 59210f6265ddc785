"""Malformed requests over REST: refused in words, never a 500, never a hang, and nothing breaks."""

from __future__ import annotations

import gzip
import itertools
import json
import socket
from dataclasses import dataclass

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.serve.fuzz import requests as made
from tests.serve.fuzz.conftest import LIMITS, Target, check_refusal, fuzzed
from tests.serve.fuzz.sockets import Answers, abandon, converse
from tests.serve.load.http_client import HttpAnswer, post
from tests.serve.load.known import rest_logits
from tests.serve.load.watch import look

pytestmark = pytest.mark.slow


def answers(found: Answers) -> list[HttpAnswer]:
    """The responses, each whole and either a success or an honest refusal."""
    responses = found.http()
    for response in responses:
        assert response.complete, response
        check_refusal(response.status, response.headers, response.body)
    return responses


def test_bodies(target: Target) -> None:
    @fuzzed(300)
    @given(made.infer_requests(target.known))
    def check(request: tuple[dict[str, str], bytes]) -> None:
        headers, body = request
        (answer,) = answers(
            converse(target.running.port, [post(target.path, headers, len(body)) + body], expect=1)
        )
        if answer.status == 200 and "inference-header-content-length" in answer.headers:
            rest_logits(answer.headers, answer.body)

    check()


def test_heads(target: Target) -> None:
    @fuzzed(300)
    @given(made.heads())
    def check(request: bytes) -> None:
        found = converse(target.running.port, [request])
        if not found.data.startswith(b"HTTP/"):
            assert found.data == b""  # hung up: it was no whole request
            return
        try:
            answers(found)
        except httptools.HttpParserUpgrade:
            pytest.fail(f"switched protocols: {found.data!r}")

    check()


def test_any_bytes(target: Target) -> None:
    @fuzzed(100)
    @given(st.lists(st.binary(max_size=200), max_size=5))
    def check(pieces: list[bytes]) -> None:
        answers(converse(target.running.port, pieces))

    check()


def test_a_good_request_in_any_pieces_is_answered(target: Target) -> None:
    whole = target.good_request()

    @fuzzed(60)
    @given(st.lists(st.integers(0, len(whole)), max_size=12))
    def check(cuts: list[int]) -> None:
        edges = [0, *sorted(cuts), len(whole)]
        pieces = [whole[a:b] for a, b in itertools.pairwise(edges)]
        (answer,) = answers(converse(target.running.port, pieces, expect=1))
        assert answer.status == 200
        assert target.known.is_right(0, rest_logits(answer.headers, answer.body)[1])

    check()


def test_pipelined_requests_are_answered_in_order(target: Target) -> None:
    @fuzzed(30)
    @given(st.integers(1, 6))
    def check(count: int) -> None:
        sent = b"".join(target.good_request(n, f"p{n}") for n in range(count))
        found = answers(converse(target.running.port, [sent], expect=count))
        check_in_order(target, found)
        assert len(found) == count

    check()


def test_garbage_after_requests_ends_the_connection_and_mixes_nothing_up(target: Target) -> None:
    @fuzzed(40)
    @given(st.integers(1, 6), st.binary(min_size=1, max_size=40))
    def check(count: int, garbage: bytes) -> None:
        sent = b"".join(target.good_request(n, f"p{n}") for n in range(count))
        found = answers(converse(target.running.port, [sent + b"\x00" + garbage], half_close=False))
        if found and found[-1].status != 200:
            assert found.pop().status == 400
        check_in_order(target, found)

    check()


def check_in_order(target: Target, found: list[HttpAnswer]) -> None:
    """The answers are those of the first requests p0, p1, ..."""
    for n, answer in enumerate(found):
        request_id, logits = rest_logits(answer.headers, answer.body)
        assert request_id == f"p{n}"
        assert target.known.is_right(n, logits)


def test_a_truncated_request_ends_with_its_connection(target: Target) -> None:
    whole = target.good_request()

    @fuzzed(60)
    @given(st.integers(0, len(whole) - 1))
    def check(end: int) -> None:
        for answer in answers(converse(target.running.port, [whole[:end]])):
            assert answer.status in (400, 408)

    check()


def test_a_client_that_breaks_off_leaves_nothing_behind(target: Target) -> None:
    whole = target.good_request()
    before = look(target.running.pid).fds

    @fuzzed(100)
    @given(st.integers(0, len(whole)), st.integers(1, 4))
    def check(end: int, times: int) -> None:
        abandon(target.running.port, [whole * (times - 1), whole[:end]])

    check()
    target.settle(before + 1)


@dataclass(frozen=True)
class Case:
    """A request written by hand; ``statuses``: one of these, None: hung up without a word."""

    request: bytes
    statuses: tuple[int | None, ...]
    half_close: bool = True


GET = b"GET /v2 HTTP/1.1\r\nHost: x\r\n"
POST = b"POST /v2/models/small/infer HTTP/1.1\r\nHost: x\r\n"
CASES = {
    "nothing": Case(b"", (None,)),
    "a lone line end": Case(b"\r\n\r\n", (None, 400)),
    "no HTTP at all": Case(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", (400, None)),
    "HTTP/2 preface": Case(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", (400, 404, 405, 505, None)),
    "HTTP/0.9": Case(b"GET /v2\r\n", (400, None)),
    "HTTP/1.0": Case(b"GET /v2 HTTP/1.0\r\n\r\n", (200,)),
    "no host": Case(b"GET /v2 HTTP/1.1\r\nConnection: close\r\n\r\n", (200, 400)),
    "absolute form": Case(b"GET http://a/v2 HTTP/1.1\r\nHost: a\r\n\r\n", (200, 400, 404)),
    "CONNECT": Case(b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", (400, 404, 405, None)),
    "upgrade": Case(GET + b"Connection: upgrade\r\nUpgrade: websocket\r\n\r\n", (200, 400)),
    "h2c": Case(GET + b"Connection: upgrade\r\nUpgrade: h2c\r\n\r\n", (200, 400)),
    "length twice": Case(POST + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}", (400,)),
    "length negative": Case(POST + b"Content-Length: -2\r\n\r\n{}", (400,)),
    "length no number": Case(POST + b"Content-Length: two\r\n\r\n{}", (400,)),
    "length of a terabyte": Case(POST + b"Content-Length: 1099511627776\r\n\r\n{}", (413,)),
    "length beyond 64 bits": Case(POST + b"Content-Length: " + b"9" * 30 + b"\r\n\r\n", (400, 413)),
    "length and chunked": Case(
        POST + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", (400,)
    ),
    "chunk of no number": Case(POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n", (400,)),
    "chunk of no number, to nowhere": Case(
        b"POST /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", (400, 404)
    ),
    "chunk of 2^64": Case(
        POST + b"Transfer-Encoding: chunked\r\n\r\n" + b"f" * 17 + b"\r\n", (400, 413)
    ),
    "chunked, then gzip": Case(POST + b"Transfer-Encoding: chunked, gzip\r\n\r\n", (400,)),
    "many headers": Case(GET + b"X-A: 1\r\n" * 500 + b"\r\n", (431, 413, 400)),
    "a long header": Case(GET + b"X-A: " + b"a" * 100_000 + b"\r\n\r\n", (431, 413, 400)),
    "a long path": Case(b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n", (414, 431, 413, 400)),
    "zero in a header": Case(GET + b"X-A: a\x00b\r\n\r\n", (400,)),
    "folded header": Case(GET + b"X-A: a\r\n b\r\n\r\n", (200, 400)),
    "bad UTF-8 in the path": Case(b"GET /v2/models/%ff%fe HTTP/1.1\r\nHost: x\r\n\r\n", (404, 400)),
    "raw bytes in the path": Case(b"GET /v2/models/\xff HTTP/1.1\r\nHost: x\r\n\r\n", (404, 400)),
    "zero in the path": Case(b"GET /v2/models/%00 HTTP/1.1\r\nHost: x\r\n\r\n", (404, 400)),
    "dots in the path": Case(b"GET /v2/../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n", (404, 400)),
    "unknown expectation": Case(POST + b"Expect: magic\r\nContent-Length: 0\r\n\r\n", (400, 417)),
    "slow head": Case(b"GET /v2 HT", (408, None), half_close=False),
    "slow body": Case(POST + b"Content-Length: 100\r\n\r\n{", (408, None), half_close=False),
    "silence": Case(b"", (408, None), half_close=False),
    "idle after an answer": Case(GET + b"\r\n", (200,), half_close=False),
    "half-closed body": Case(POST + b"Content-Length: 100\r\n\r\n{", (400, 408, None)),
}


@pytest.mark.parametrize("name", CASES)
def test_written_by_hand(target: Target, name: str) -> None:
    case = CASES[name]
    found = converse(target.running.port, [case.request], half_close=case.half_close)
    statuses = [answer.status for answer in answers(found)] or [None]
    assert statuses[0] in case.statuses
    assert len(statuses) == 1, "what follows a bad request is not another request"


def test_a_request_hidden_behind_a_doubtful_length_is_not_answered(target: Target) -> None:
    hidden = b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n"
    head = POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n"
    (answer,) = answers(converse(target.running.port, [head + hidden]))
    assert answer.status == 400


def test_a_request_id_cannot_add_headers(target: Target) -> None:
    for sent in ("a\tb", "x" * 5000, "caf\xe9", "a, b", "\x01"):
        request = f"GET /v2 HTTP/1.1\r\nHost: x\r\nX-Request-Id: {sent}\r\n\r\n".encode("latin-1")
        for answer in answers(converse(target.running.port, [request])):
            echoed = answer.headers.get("x-request-id", "")
            assert len(echoed) < 1000
            assert "\n" not in echoed


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_a_bomb_is_refused_before_it_is_unpacked(target: Target, coding: str) -> None:
    import zlib

    zeros = bytes(64 * 2**20)
    body = gzip.compress(zeros) if coding == "gzip" else zlib.compress(zeros)
    assert len(body) < LIMITS["body_bytes"]
    before = look(target.running.pid).rss_bytes
    headers = {"Content-Encoding": coding, "Inference-Header-Content-Length": "10"}
    for _ in range(5):
        request = post(target.path, headers, len(body)) + body
        (answer,) = answers(converse(target.running.port, [request], expect=1))
        assert answer.status == 413
    assert look(target.running.pid).rss_bytes - before < 32 * 2**20


def test_a_body_beyond_the_limit_is_refused_without_reading_it_all(target: Target) -> None:
    size = int(LIMITS["body_bytes"]) + 1
    (answer,) = answers(
        converse(target.running.port, [post(target.path, {}, size), bytes(size)], expect=1)
    )
    assert answer.status == 413
    chunk = b"10000\r\n" + bytes(65536) + b"\r\n"
    head = POST + b"Transfer-Encoding: chunked\r\n\r\n"
    (answer,) = answers(converse(target.running.port, [head, *[chunk] * 32], expect=1))
    assert answer.status == 413


def test_a_chunked_request_is_answered(target: Target) -> None:
    head, _, body = target.good_request().partition(b"\r\n\r\n")
    lines = [line for line in head.split(b"\r\n") if not line.startswith(b"Content-Length")]
    head = b"\r\n".join([*lines, b"Transfer-Encoding: chunked"]) + b"\r\n\r\n"
    chunks = [body[n : n + 1000] for n in range(0, len(body), 1000)]
    pieces = [b"%x;note=1\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks]
    (answer,) = answers(
        converse(target.running.port, [head, *pieces, b"0\r\nX-Trailer: 1\r\n\r\n"])
    )
    assert answer.status == 200
    assert target.known.is_right(0, rest_logits(answer.headers, answer.body)[1])


def test_a_client_is_told_to_go_on_when_it_asks(target: Target) -> None:
    head, _, body = target.good_request(0, "e", Expect="100-continue").partition(b"\r\n\r\n")
    found = converse(target.running.port, [head + b"\r\n\r\n", body])
    text = found.data
    if text.startswith(b"HTTP/1.1 100"):
        text = text.partition(b"\r\n\r\n")[2]
    (answer,) = answers(Answers(text))
    assert answer.status == 200


def test_clients_that_do_not_read_are_dropped(target: Target) -> None:
    before = look(target.running.pid).fds
    many = b"GET /v2/models/small/config HTTP/1.1\r\nHost: x\r\n\r\n" * 20_000
    sockets = []
    for _ in range(5):
        sock = socket.create_connection((target.running.host, target.running.port), timeout=30)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.setblocking(False)
        sockets.append(sock)
        view = memoryview(many)
        while view:
            try:
                view = view[sock.send(view) :]
            except (BlockingIOError, ConnectionError):
                break
    target.still_answers()
    target.settle(before + 1)
    for sock in sockets:
        sock.close()


def test_more_connections_than_allowed_are_told_so(target: Target) -> None:
    limit = int(LIMITS["connections"])
    sockets = []
    try:
        for _ in range(limit):
            address = (target.running.host, target.running.port)
            sockets.append(socket.create_connection(address, timeout=30))
            sockets[-1].sendall(b"G")
        found = answers(converse(target.running.port, [GET + b"\r\n"]))
        assert [answer.status for answer in found] in ([503], [])
    finally:
        for sock in sockets:
            sock.close()
    until_there_is_room(target)


def until_there_is_room(target: Target) -> None:
    """The closed connections are noticed, and the next request is answered."""
    for _ in range(200):
        found = converse(target.running.port, [GET + b"\r\n"], expect=1).http()
        if found and found[0].status == 200:
            assert json.loads(found[0].body)["name"]
            return
    pytest.fail("no room after all connections were closed")
