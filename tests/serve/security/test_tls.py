"""TLS and client certificates, on both wires."""

from __future__ import annotations

import asyncio
import ssl

import grpc
import grpc.aio
import pytest

from parnet_deploy.errors import ServeError
from parnet_deploy.serve.security.limits import Limits
from parnet_deploy.serve.security.tls import TlsFiles
from tests.serve import wire
from tests.serve.rpc.test_rpc import client_of, infer_request, logits_of, refusal
from tests.serve.security.certificates import make_authority, make_certificate, openssl
from tests.serve.wire import INFER, connected, json_body


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Authorities ``ours`` and ``theirs``, and certificates server, client and stranger."""
    folder = tmp_path_factory.mktemp("tls")
    ours, theirs = make_authority(folder, "ours"), make_authority(folder, "theirs")
    make_certificate(folder, "server", ours)
    make_certificate(folder, "client", ours)
    make_certificate(folder, "stranger", theirs)
    return folder


def files(folder, *, mutual: bool = False) -> TlsFiles:
    authority = folder / "ours.pem" if mutual else None
    return TlsFiles(
        certificate=folder / "server.pem", key=folder / "server.key", client_ca=authority
    )


def context(folder, client: str | None = None, authority: str = "ours") -> ssl.SSLContext:
    found = ssl.create_default_context(cafile=folder / f"{authority}.pem")
    if client is not None:
        found.load_cert_chain(folder / f"{client}.pem", folder / f"{client}.key")
    return found


def credentials(folder, client: str | None = None):
    pair = [None, None]
    if client is not None:
        pair = [(folder / f"{client}.{end}").read_bytes() for end in ("key", "pem")]
    return grpc.ssl_channel_credentials((folder / "ours.pem").read_bytes(), *pair)


def serve(body, **options) -> None:
    wire.serve(body, **{"port": 0, "grpc_port": 0, **options})


def test_both_wires_speak_tls(folder) -> None:
    async def body(server, service):
        assert server.url.startswith("https://127.0.0.1:")
        async with connected(server, tls=context(folder)) as http:
            reply = await http.ask(INFER, json_body())
            assert wire.logits_of(reply).shape == (2, 4)
        async with client_of(server, credentials(folder)) as client:
            response = await client.call("ModelInfer", infer_request())
            assert logits_of(response).shape == (2, 4)

    serve(body, tls=files(folder))


def test_plain_and_old_tls_and_foreign_authorities_do_not_connect(folder) -> None:
    async def body(server, service):
        async with connected(server) as http:
            http.send(b"GET /v2 HTTP/1.1\r\n\r\n")
            assert b"HTTP" not in await http.ended()
        with pytest.raises(ssl.SSLCertVerificationError):
            async with connected(server, tls=context(folder, authority="theirs")):
                pass
        async with client_of(server) as client:
            assert (await refusal(client.call("ServerLive")))[0] == "UNAVAILABLE"
        assert files(folder).context().minimum_version == ssl.TLSVersion.TLSv1_2
        async with connected(server, tls=context(folder)) as http:
            assert (await http.ask("/v2")).status == 200

    serve(body, tls=files(folder))


@pytest.mark.parametrize("client", [None, "stranger"])
def test_without_a_certificate_of_the_authority_nobody_asks(folder, client) -> None:
    async def body(server, service):
        with pytest.raises((ssl.SSLError, ConnectionError, EOFError)):
            async with connected(server, tls=context(folder, client)) as http:
                await http.ask("/v2/health/live")
        async with client_of(server, credentials(folder, client)) as grpc_client:
            code, _ = await refusal(grpc_client.call("ServerLive"))
            assert code == "UNAVAILABLE"
        assert service.entered == 0

    serve(body, tls=files(folder, mutual=True))


def test_with_one_it_does(folder) -> None:
    async def body(server, service):
        async with connected(server, tls=context(folder, "client")) as http:
            assert (await http.ask("/v2")).status == 200
        async with client_of(server, credentials(folder, "client")) as client:
            assert (await client.call("ServerLive")).live

    serve(body, tls=files(folder, mutual=True))


def test_a_handshake_that_does_not_go_on_ends(folder) -> None:
    async def body(server, service):
        async with connected(server) as http:
            http.send(b"\x16\x03\x01\x02\x00")
            assert await http.ended() == b""

    serve(body, tls=files(folder), limits=Limits(head_s=0.05))


@pytest.mark.parametrize("broken", ["certificate", "key", "client_ca"])
@pytest.mark.parametrize("how", ["missing", "garbage", "other"])
def test_files_that_are_none_are_refused_at_the_start(folder, tmp_path, broken, how) -> None:
    good = files(folder, mutual=True)
    bad = tmp_path / "bad.pem"
    if how == "garbage":
        bad.write_text("no PEM")
    elif how == "other":
        bad.write_bytes(
            (folder / ("client.key" if broken != "client_ca" else "ours.key")).read_bytes()
        )
    changed = TlsFiles(**{**vars(good), broken: bad})
    what = {"certificate": "certificate", "key": "key", "client_ca": "client CA"}[broken]
    if (broken, how) == ("certificate", "other"):
        bad.write_bytes((folder / "client.pem").read_bytes())
        match = r"key .*server\.key: got .*expected the key of certificate .*bad\.pem"
    else:
        match = rf"^{what} .*bad\.pem: got "
    with pytest.raises(ServeError, match=match):
        serve(lambda server, service: None, tls=changed)


def test_an_encrypted_key_is_called_so(folder, tmp_path) -> None:
    locked = tmp_path / "locked.key"
    openssl(
        *("pkey", "-in", folder / "server.key", "-out", locked),
        *("-aes256", "-passout", "pass:secret"),
    )
    changed = TlsFiles(certificate=folder / "server.pem", key=locked)
    with pytest.raises(ServeError, match=r"^key .*locked\.key: got one that is encrypted"):
        serve(lambda server, service: None, tls=changed)


def test_connections_that_never_shake_hands_count_too(folder, caplog) -> None:
    counted, refused = [], []

    async def body(server, service):
        (listener,) = server._rest
        async with connected(server) as one, connected(server) as two:
            while len(listener._opening) < 2:
                await asyncio.sleep(0)
            async with connected(server) as three:
                assert await three.ended() == b""
                refused.append(three.address)
            assert len(listener._opening) == 2
            one.abort()
            while len(listener._opening) == 2:
                await asyncio.sleep(0)
            async with connected(server, tls=context(folder)) as http:
                assert (await http.ask("/v2")).status == 200
                async with connected(server) as four:
                    assert await four.ended() == b""
                    refused.append(four.address)
            assert not two.reader.at_eof()

    limits = Limits(connections=2)
    serve(body, tls=files(folder), limits=limits, on_refused=lambda *each: counted.append(each))
    assert counted == [("rest", "busy")] * 2
    busy = [r.fields for r in caplog.records if getattr(r, "fields", {}).get("status") == "busy"]
    assert [fields["peer"] for fields in busy] == refused


def test_a_connection_that_never_shakes_hands_ends(folder) -> None:
    async def body(server, service):
        async with connected(server) as http:
            assert await http.ended() == b""
        while server._rest[0]._opening:
            await asyncio.sleep(0)

    serve(body, tls=files(folder), limits=Limits(head_s=0.05))
