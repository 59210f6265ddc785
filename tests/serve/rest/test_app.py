"""The REST shell over a fake service: every path, and what goes wrong."""

from __future__ import annotations

import gzip
import json
import zlib

import numpy as np
import pytest

from parnet_deploy.serve.protocol.refusal import CODES, RefusedError
from parnet_deploy.serve.rest.answer import Answer
from parnet_deploy.serve.rest.app import Page
from parnet_deploy.serve.rest.routes import INFER_PATTERNS, PATHS
from parnet_deploy.serve.security.limits import Limits
from tests.serve.wire import (
    INFER,
    binary_body,
    connected,
    expected,
    json_body,
    logits_of,
    serve,
)

ANSWERS = {
    "/v2/health/live": {"live": True},
    "/v2/health/ready": {"ready": True},
    "/v2": {"name": "parnet-deploy", "version": "0", "extensions": ["binary_tensor_data"]},
    "/v2/models/toy/ready": {"name": "toy", "ready": True},
    "/v2/models/toy/versions/1/ready": {"name": "toy", "ready": True},
    "/v2/models/toy/config": {"name": "toy", "max_batch_size": 8},
    "/v2/models/toy/versions/1/config": {"name": "toy", "max_batch_size": 8},
    "/v2/systemsharedmemory/status": [],
    "/v2/cudasharedmemory/region/r/status": [],
}


def test_every_question_has_its_document() -> None:
    async def body(server, service):
        async with connected(server) as http:
            for path, document in ANSWERS.items():
                reply = await http.ask(path)
                assert (reply.status, reply.json()) == (200, document), path
                assert reply.headers["content-type"] == "application/json"
            for path in ("/v2/models/toy", "/v2/models/toy/versions/1", "/v2/models/toy/"):
                found = (await http.ask(path)).json()
                assert found["inputs"][0]["name"] == "image"
            for path in ("/v2/models/stats", "/v2/models/toy/stats"):
                found = (await http.ask(path)).json()
                assert found["model_stats"][0]["name"] == "toy"

    serve(body)


def test_head_is_get_without_a_body() -> None:
    async def body(server, service):
        async with connected(server) as http:
            got, head = [await http.ask("/v2", method=method) for method in ("GET", "HEAD")]
            assert head.headers["content-length"] == got.headers["content-length"]
            assert (await http.ask("/v2/health/live", method="HEAD")).status == 200

    serve(body)


def test_not_ready_is_400_with_a_document() -> None:
    async def body(server, service):
        service.ready = False
        async with connected(server) as http:
            reply = await http.ask("/v2/health/ready")
            assert (reply.status, reply.json()) == (400, {"ready": False})
            reply = await http.ask("/v2/models/toy/ready")
            assert (reply.status, reply.json()["ready"]) == (400, False)
            assert (await http.ask("/v2/health/live")).status == 200

    serve(body)


def test_repository_index_and_what_it_may_be_asked() -> None:
    async def body(server, service):
        async with connected(server) as http:
            for content in (b"{}", b'{"ready": true}', b" "):
                reply = await http.ask("/v2/repository/index", content, method="POST")
                assert [entry["name"] for entry in reply.json()] == ["toy"]
            assert len((await http.ask("/v2/repository/index", method="POST")).json()) == 1
            service.ready = False
            reply = await http.ask("/v2/repository/index", b'{"ready": true}')
            assert reply.json() == []
            for content in (b"{", b"[1]", b'{"ready": 3}', b"\xff"):
                reply = await http.ask("/v2/repository/index", content)
                assert reply.status == 400
                assert "body: got" in reply.error

    serve(body)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/v2/repository/models/toy/load", 503),
        ("POST", "/v2/repository/models/toy/unload", 503),
        ("GET", "/v2/trace/setting", 501),
        ("POST", "/v2/models/toy/trace/setting", 501),
        ("GET", "/v2/logging", 501),
        ("POST", "/v2/logging", 501),
        ("POST", "/v2/systemsharedmemory/region/r/register", 501),
        ("POST", "/v2/cudasharedmemory/region/r/register", 501),
        ("POST", "/v2/systemsharedmemory/unregister", 200),
        ("POST", "/v2/cudasharedmemory/region/r/unregister", 200),
        ("GET", "/v2/nothing", 404),
        ("GET", "/", 404),
        ("GET", "/v2/models/other", 404),
        ("GET", "/v2/models/toy/versions/7", 404),
        ("GET", "/v2/models//ready", 404),
        ("GET", "/v2/models/%FF%00/ready", 404),
        ("GET", "/metrics", 404),
    ],
)
def test_what_is_not_there_says_so_as_json(method, path, status) -> None:
    async def body(server, service):
        async with connected(server) as http:
            reply = await http.ask(path, b"{}" if method == "POST" else b"", method=method)
            assert reply.status == status
            if status == 503:
                assert "SIGHUP, or --watch" in reply.body.decode()
            if status != 200:
                assert reply.error
            assert "retry-after" not in reply.headers  # trying again would not help

    serve(body)


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "POST", "GET"])
def test_wrong_verbs_are_405_with_what_is_allowed(method) -> None:
    async def body(server, service):
        async with connected(server) as http:
            for path in (*(p.pattern for p in PATHS), *INFER_PATTERNS):
                path = path.replace("{model}", "toy").replace("{version}", "1")
                reply = await http.ask(path, method=method)
                if reply.status != 405:
                    assert method in ("GET", "POST")
                    continue
                assert method not in reply.headers["allow"].split(", ")
                assert f"got {method}" in reply.error

    serve(body)


def test_json_and_binary_give_the_same_logits() -> None:
    async def body(server, service):
        async with connected(server) as http:
            as_json = await http.ask(INFER, json_body())
            assert as_json.headers["content-type"] == "application/json"
            content, length = binary_body(id="mine")
            for path in (INFER, "/v2/models/toy/versions/1/infer", "/v2/models/t%6Fy/infer"):
                raw = await http.ask(path, content, Inference_Header_Content_Length=length)
                assert raw.headers["content-type"] == "application/octet-stream"
                np.testing.assert_array_equal(logits_of(raw), expected())
                assert b'"id":"mine"' in raw.body
            np.testing.assert_allclose(logits_of(as_json), expected(), rtol=1e-6)
            assert service.arrivals[-1].wire == "rest"

    serve(body)


def test_a_body_in_many_chunks_and_of_unknown_length() -> None:
    async def body(server, service):
        content, length = binary_body()
        async with connected(server) as http:
            http.send(
                f"POST {INFER} HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n"
                f"Inference-Header-Content-Length: {length}\r\n\r\n".encode()
            )
            for at in range(0, len(content), 100):
                part = content[at : at + 100]
                http.send(b"%x\r\n%s\r\n" % (len(part), part))
                await http.writer.drain()
            http.send(b"0\r\n\r\n")
            np.testing.assert_array_equal(logits_of(await http.reply()), expected())

    serve(body)


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_compressed_both_ways(coding) -> None:
    undo = {"gzip": gzip.decompress, "deflate": zlib.decompress}[coding]
    done = {"gzip": gzip.compress, "deflate": zlib.compress}[coding]

    async def body(server, service):
        content, length = binary_body(np.ones((40, 3, 8, 8), np.float32))
        async with connected(server) as http:
            reply = await http.ask(
                INFER,
                done(content),
                Content_Encoding=coding,
                Accept_Encoding=coding,
                Inference_Header_Content_Length=length,
            )
            assert reply.headers["content-encoding"] == coding
            plain = type(reply)(reply.status, reply.headers, undo(reply.body))
            assert (logits_of(plain)[:, 0] == 192).all()

    serve(body)


def test_a_bomb_is_413_and_no_encoding_is_400() -> None:
    async def body(server, service):
        bomb = gzip.compress(bytes(3_000_000))
        async with connected(server) as http:
            reply = await http.ask(INFER, bomb, Content_Encoding="gzip")
            assert reply.status == 413
            assert "more than 1000000 bytes" in reply.error
            reply = await http.ask(INFER, b"not gzip", Content_Encoding="gzip")
            assert reply.status == 400
            reply = await http.ask(INFER, b"{}", Content_Encoding="br")
            assert reply.status == 400
        assert service.entered == 0

    serve(body, limits=Limits(body_bytes=1_000_000))


def test_a_body_over_the_limit_is_413_before_it_is_read() -> None:
    async def body(server, service):
        async with connected(server) as http:
            http.send(f"POST {INFER} HTTP/1.1\r\nHost: x\r\nContent-Length: 1001\r\n\r\n".encode())
            reply = await http.reply()
            assert reply.status == 413
            assert "got 1001 bytes, expected at most 1000" in reply.error
            http.send(bytes(1001))  # it may still be sent, and the connection goes on
            assert (await http.ask("/v2")).status == 200

    serve(body, limits=Limits(body_bytes=1000))


def test_a_body_of_unknown_length_over_the_limit_is_413() -> None:
    async def body(server, service):
        async with connected(server) as http:
            http.send(
                f"POST {INFER} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
            )
            http.send(b"3e8\r\n" + bytes(1000) + b"\r\n1\r\nx\r\n")
            reply = await http.reply()
            assert (reply.status, "more than 1000" in reply.error) == (413, True)

    serve(body, limits=Limits(body_bytes=1000))


def test_expect_100_continue_is_not_encouraged_if_refused() -> None:
    async def body(server, service):
        content = json_body()
        head = f"POST {INFER} HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: "
        async with connected(server) as http:
            http.send(f"{head}9999999\r\n\r\n".encode())
            assert (await http.reply()).status == 413
        async with connected(server) as http:
            http.send(f"{head}{len(content)}\r\n\r\n".encode())
            assert await http.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            http.send(content)
            assert (await http.reply()).status == 200

    serve(body, limits=Limits(body_bytes=100_000))


@pytest.mark.parametrize("kind", sorted(CODES))
def test_each_refusal_has_its_status(kind) -> None:
    async def body(server, service):
        service.refusal = RefusedError(kind, "what: got x, expected y.", retry_after_s=1.2)
        async with connected(server) as http:
            reply = await http.ask(INFER, json_body())
            assert (reply.status, reply.error) == (CODES[kind].http, str(service.refusal))
            assert reply.headers.get("retry-after") == ("2" if CODES[kind].retry else None)

    serve(body)


def test_a_bug_is_500_without_its_secrets(caplog) -> None:
    async def body(server, service):
        service.refusal = ZeroDivisionError("secret")
        async with connected(server) as http:
            reply = await http.ask(INFER, json_body(), X_Request_ID="bug-1")
            assert reply.status == 500
            assert "bug-1" in reply.error
            assert "secret" not in reply.error
            service.refusal = None
            assert (await http.ask(INFER, json_body())).status == 200

    serve(body)
    (record,) = [r for r in caplog.records if r.levelname == "ERROR"]
    assert record.fields["id"] == "bug-1"
    assert record.exc_info


def test_request_ids_are_echoed_or_made() -> None:
    async def body(server, service):
        async with connected(server) as http:
            reply = await http.ask("/v2", X_Request_ID="abc-1")
            assert reply.headers["x-request-id"] == "abc-1"
            made = {(await http.ask("/v2")).headers["x-request-id"] for _ in range(3)}
            assert len(made) == 3
            for bad in ("has space", "x" * 129, "\xe9"):
                reply = await http.ask("/v2", X_Request_ID=bad)
                assert reply.headers["x-request-id"] not in (bad, "abc-1")

    serve(body)


def test_where_the_time_went_is_in_the_head() -> None:
    async def body(server, service):
        async with connected(server) as http:
            timing = (await http.ask(INFER, json_body())).headers["server-timing"]
        found = dict(part.split(";") for part in timing.split(", "))
        assert (found["queue"], found["infer"]) == ("dur=1.000", "dur=2.000")
        assert float(found["total"].removeprefix("dur=")) > 0
        assert found["batch"] == 'desc="2"'

    serve(body)


def test_pages_beside_the_protocol() -> None:
    html = Answer(headers=((b"content-type", b"text/html"),), body=b"<p>")
    pages = {"/": Page(make=lambda: html, public=True)}

    async def body(server, service):
        async with connected(server) as http:
            reply = await http.ask("/")
            assert (reply.body, reply.headers["content-type"]) == (b"<p>", "text/html")
            assert (await http.ask("/", b"x")).status == 405
            reply = await http.ask("/metrics")
            assert (reply.body, reply.headers["content-type"]) == (b"m 1\n", "text/plain")

    serve(body, pages=pages, metrics=lambda: (b"m 1\n", "text/plain"))


def test_metrics_on_a_port_of_their_own() -> None:
    async def body(server, service):
        async with connected(server) as http:
            assert (await http.ask("/metrics")).status == 404
        async with connected(server, server.metrics_port) as http:
            assert (await http.ask("/metrics")).body == b"m 1\n"
            assert (await http.ask("/v2/health/ready")).status == 200
            assert (await http.ask("/v2/models/toy")).status == 404
            assert (await http.ask(INFER, json_body())).status == 404

    serve(body, metrics_port=0, metrics=lambda: (b"m 1\n", "text/plain"))


def test_a_long_message_is_cut() -> None:
    async def body(server, service):
        async with connected(server) as http:
            reply = await http.ask("/" + "x" * 5000)
            assert reply.status == 404
            assert len(reply.error) <= 1000
            assert json.loads(reply.body)

    serve(body)


def test_json_is_bounded_and_raw_tensors_are_not() -> None:
    async def body(server, service):
        small, large = json_body(), json_body(id="x" * 20_000)
        raw, length = binary_body(np.ones((2, 3, 64, 64), np.float32))
        assert len(small) < 10_000 < len(large) < len(raw)
        async with connected(server) as http:
            assert (await http.ask(INFER, small)).status == 200
            for content, headers in (
                (large, {}),
                (gzip.compress(large), {"Content_Encoding": "gzip"}),
                (large + bytes(4), {"Inference_Header_Content_Length": str(len(large))}),
            ):
                reply = await http.ask(INFER, content, **headers)
                assert (reply.status, f"{len(large)} bytes of JSON" in reply.error) == (413, True)
            reply = await http.ask(INFER, raw, Inference_Header_Content_Length=length)
            assert reply.status == 200

    serve(body, limits=Limits(json_bytes=10_000))
