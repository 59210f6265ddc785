"""The command that a server prints, to be pasted."""

from __future__ import annotations

from pathlib import Path

import pytest

from parnet_deploy.cli.asking import curl_command
from parnet_deploy.cli.serve_ray import _size_text
from parnet_deploy.serve.security.tls import TlsFiles
from parnet_deploy.serve.security.token import Token
from parnet_deploy.serve.server.options import ServerOptions

TOKEN = Token("t" * 32)
TLS = TlsFiles(certificate=Path("my cert.pem"), key=Path("key.pem"))
MUTUAL = TlsFiles(certificate=Path("cert.pem"), key=Path("key.pem"), client_ca=Path("ca.pem"))


@pytest.mark.parametrize(
    ("options", "address", "file", "command"),
    [
        ({}, "127.0.0.1", None, "curl http://127.0.0.1:80/v2/models/m"),
        ({"host": "0.0.0.0"}, "0.0.0.0", None, "curl http://127.0.0.1:80/v2/models/m"),
        ({"host": "::"}, "::", None, "curl http://[::1]:80/v2/models/m"),
        (
            {"token": TOKEN},
            "127.0.0.1",
            Path("a token"),
            "curl -H \"Authorization: Bearer $(cat 'a token')\" http://127.0.0.1:80/v2/models/m",
        ),
        (
            {"token": TOKEN},
            "127.0.0.1",
            None,
            'curl -H "Authorization: Bearer $PARNET_DEPLOY_TOKEN" http://127.0.0.1:80/v2/models/m',
        ),
        (
            {"tls": TLS, "host": "0.0.0.0"},
            "0.0.0.0",
            None,
            "curl --cacert 'my cert.pem' https://localhost:80/v2/models/m",
        ),
        (
            {"tls": MUTUAL, "host": "box.example"},
            "192.0.2.1",
            None,
            "curl --cacert cert.pem --cert CLIENT.pem --key CLIENT.key "
            "https://box.example:80/v2/models/m",
        ),
    ],
)
def test_the_command(options, address, file, command) -> None:
    assert curl_command(ServerOptions(**options), address, 80, "m", file) == command


def test_one_is_one() -> None:
    assert _size_text(1, 0) == "1 core and 0 GPUs"
    assert _size_text(2.0, 1.0) == "2 cores and 1 GPU"
