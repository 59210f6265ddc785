"""The token: where it comes from, and who it admits, on both wires."""

from __future__ import annotations

import pytest

from parnet_deploy.errors import ServeError
from parnet_deploy.serve.protocol import messages
from parnet_deploy.serve.rest.answer import Answer
from parnet_deploy.serve.rest.app import Page
from parnet_deploy.serve.rest.routes import INFER_PATTERNS, OPEN, PATHS
from parnet_deploy.serve.security.token import VARIABLE, Token, read_token
from tests.serve import wire
from tests.serve.rpc.test_rpc import client_of, infer_request, logits_of, refusal
from tests.serve.wire import INFER, connected, json_body, request

SECRET = "correct-horse-battery"
GOOD = f"Bearer {SECRET}"
WRONG = ["", "Bearer", "Bearer ", f"Bearer {SECRET}x", f"Bearer {SECRET[:-1]}", f"Basic {SECRET}"]
WRONG += [SECRET, f"Bearer {SECRET.upper()}", f"Bearer{SECRET}", f"Bearer {SECRET} {SECRET}"]


def test_who_is_admitted() -> None:
    token = Token(SECRET)
    assert token.admits(GOOD.encode())
    assert token.admits(f"bearer   {SECRET} ".encode())
    assert not token.admits(None)
    for wrong in WRONG:
        assert not token.admits(wrong.encode()), wrong
    assert not token.admits(b"Bearer \xff\x00")
    assert SECRET not in repr(token) + str(vars(token))


def test_from_a_file_or_the_environment(tmp_path) -> None:
    file = tmp_path / "token"
    file.write_text(f"{SECRET}\n")
    file.chmod(0o600)
    other = {VARIABLE: "another-secret-of-16"}
    token = read_token(file, other)
    assert token.admits(GOOD.encode())
    assert token.warning is None
    assert read_token(None, other).admits(b"Bearer another-secret-of-16")
    assert read_token(None, {}) is None
    file.chmod(0o644)
    assert "can be read by others" in read_token(file, {}).warning


@pytest.mark.parametrize(
    "content", [b"", b"\n", b"short", b"two words are not one", b"x" * 5000, "ü".encode() * 20]
)
def test_what_is_no_token_is_refused_and_not_shown(tmp_path, content) -> None:
    file = tmp_path / "token"
    file.write_bytes(content)
    with pytest.raises(ServeError, match=r"token file .*expected one word of 16") as found:
        read_token(file, {})
    assert "two words" not in str(found.value)
    with pytest.raises(ServeError, match="token file"):
        read_token(tmp_path / "none", {})
    with pytest.raises(ServeError, match=VARIABLE):
        read_token(None, {VARIABLE: "short"})


def test_rest_admits_nobody_without_it() -> None:
    async def body(server, service):
        patterns = [*(p.pattern for p in PATHS), *INFER_PATTERNS, "/metrics", "/none"]
        async with connected(server) as http:
            for pattern in patterns:
                path = pattern.replace("{model}", "toy").replace("{version}", "1")
                for method in ("GET", "POST"):
                    reply = await http.ask(path, method=method)
                    if pattern in OPEN:
                        assert reply.status == (200 if method == "GET" else 405)
                        continue
                    assert reply.status == 401, path
                    assert reply.headers["www-authenticate"].startswith("Bearer")
                    assert "token" in reply.error
            for wrong in WRONG:
                assert (await http.ask("/v2", Authorization=wrong)).status == 401
            assert (await http.ask("/")).body == b"open"
            assert (await http.ask("/v2", Authorization=GOOD)).status == 200
            reply = await http.ask(INFER, json_body(), Authorization=GOOD)
            assert wire.logits_of(reply).shape == (2, 4)
        assert service.entered == 1

    pages = {"/": Page(make=lambda: Answer(body=b"open"), public=True)}
    wire.serve(body, token=Token(SECRET), pages=pages, metrics=lambda: (b"m", "text/plain"))


def test_rest_refuses_before_the_body_is_there() -> None:
    async def body(server, service):
        async with connected(server) as http:
            http.send(request(INFER, Content_Length="1000000", Expect="100-continue"))
            assert (await http.reply()).status == 401

    wire.serve(body, token=Token(SECRET))


def test_grpc_admits_nobody_without_it() -> None:
    async def body(server, service):
        async with client_of(server) as client:
            for method in messages.methods():
                if method.name in ("ServerLive", "ServerReady"):
                    await client.call(method.name)
                    continue
                for given in (None, *WRONG):
                    metadata = None if given is None else (("authorization", given),)
                    if method.name == "ModelStreamInfer":
                        # Nothing is sent: a write after the refusal hides it, in this client, as
                        # INTERNAL "Internal error from Core" (2 of 3,000 calls).
                        call = client.stream(None, metadata=metadata).read()
                    else:
                        call = client.call(method.name, metadata=metadata)
                    assert (await refusal(call))[0] == "UNAUTHENTICATED", method.name
            assert (await refusal(client.channel.unary_unary("/a/B")(b"")))[0] == "UNAUTHENTICATED"
            assert await client.channel.unary_unary("/grpc.health.v1.Health/Check")(b"")
            response = await client.call(
                "ModelInfer", infer_request(), metadata=(("authorization", GOOD),)
            )
            assert logits_of(response).shape == (2, 4)
        assert service.entered == 1

    wire.serve(body, port=None, grpc_port=0, token=Token(SECRET))


def test_a_token_is_never_written_down(caplog) -> None:
    async def body(server, service):
        async with connected(server) as http:
            await http.ask("/v2", Authorization=GOOD)
            await http.ask("/v2/none", Authorization=GOOD)
            await http.ask("/v2", Authorization=f"Bearer {SECRET}x")

    caplog.set_level("DEBUG")
    wire.serve(body, token=Token(SECRET))
    assert len([r for r in caplog.records if r.name == "parnet_deploy.serve"]) == 3
    assert not any(SECRET in str(vars(record)) for record in caplog.records)
