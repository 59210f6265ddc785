"""Where the server may listen."""

from __future__ import annotations

import socket

import pytest

from parnet_deploy.errors import ServeError
from parnet_deploy.serve.security import bind
from parnet_deploy.serve.security.tls import TlsFiles
from parnet_deploy.serve.security.token import Token
from parnet_deploy.serve.server.options import ServerOptions

LOOPBACK = ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1", "localhost", "[::1]"]
OPEN = ["0.0.0.0", "::", "10.1.2.3", "192.168.0.1", "::ffff:10.0.0.1", "fe80::1", "8.8.8.8"]


@pytest.mark.parametrize("host", LOOPBACK)
def test_the_machine_itself_needs_no_protection(host) -> None:
    assert bind.is_loopback(ServerOptions(host=host).address())


@pytest.mark.parametrize("host", OPEN)
def test_any_other_address_needs_some(host, tmp_path) -> None:
    with pytest.raises(ServeError, match=r"which other machines can reach.*--insecure"):
        ServerOptions(host=host).address()
    tls = TlsFiles(certificate=tmp_path / "c", key=tmp_path / "k")
    for protection in ({"token": Token("x" * 16)}, {"tls": tls}, {"insecure": True}):
        assert ServerOptions(host=host, **protection).address()


def test_a_name_is_what_it_resolves_to(monkeypatch) -> None:
    def resolve(*addresses):
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (a, 0)) for a in addresses]
        monkeypatch.setattr(bind.socket, "getaddrinfo", lambda *args, **more: found)

    resolve("10.0.0.7")
    with pytest.raises(ServeError, match=r"host inside: got 10\.0\.0\.7"):
        ServerOptions(host="inside").address()
    resolve("::1", "127.0.0.1")
    assert ServerOptions(host="localhost").address() == "127.0.0.1"
    resolve("10.0.0.7", "::1")
    assert ServerOptions(host="both").address() == "::1"


@pytest.mark.parametrize("host", ["", " ", "no.such.host.invalid", "a" * 300, "1.2.3.4.5"])
def test_a_host_that_is_none_is_named(host) -> None:
    with pytest.raises(ServeError, match=r"^host"):
        ServerOptions(host=host).address()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"port": None, "grpc_port": None}, "neither REST nor gRPC"),
        ({"port": 8001, "grpc_port": 8001}, "expected different ones"),
        ({"metrics_port": 8000}, "expected different ones"),
        ({"port": 70000}, "REST port: got 70000"),
        ({"grpc_port": -1}, "gRPC port: got -1"),
    ],
)
def test_ports_that_make_no_sense(options, message) -> None:
    with pytest.raises(ServeError, match=message):
        ServerOptions(**options).address()
    assert ServerOptions(port=0, grpc_port=0, metrics_port=0).address()


def test_what_protection_does_not_protect_is_said(tmp_path) -> None:
    def warnings(host, **options):
        return ServerOptions(host=host, **options).warnings(host)

    tls = TlsFiles(certificate=tmp_path / "c", key=tmp_path / "k")
    mutual = TlsFiles(certificate=tmp_path / "c", key=tmp_path / "k", client_ca=tmp_path / "a")
    token = Token("x" * 16)
    assert warnings("127.0.0.1") == []
    assert len(warnings("0.0.0.0", insecure=True)) == 2
    assert ["the token and the data" in w for w in warnings("0.0.0.0", token=token)] == [True]
    assert ["whoever reaches" in w for w in warnings("0.0.0.0", tls=tls)] == [True]
    assert warnings("0.0.0.0", tls=tls, token=token) == []
    assert warnings("0.0.0.0", tls=mutual) == []
