"""Where Ray's proxies listen, what protects them, and the file for ``serve deploy``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from parnet_deploy.errors import ServeError
from parnet_deploy.serve.ray.config import check_wires, config_file, proxy_options, wire_warnings
from parnet_deploy.serve.ray.settings import ModelSettings, ReplicaSettings
from parnet_deploy.serve.security.tls import TlsFiles
from parnet_deploy.serve.security.token import Token
from parnet_deploy.serve.server.options import ServerOptions

TOKEN = Token("a" * 32)
SETTINGS = ReplicaSettings(
    models=(ModelSettings(path="/models/a: b #", plan="cpu", digest="f" * 64),),
    deadline_ms=1e3,
)
DEPLOYMENT: dict[str, Any] = {
    "name": "parnet",
    "num_replicas": 2,
    "ray_actor_options": {"num_cpus": 3, "num_gpus": 0},
}


@pytest.mark.parametrize(
    "options",
    [
        ServerOptions(token=TOKEN),
        ServerOptions(grpc_port=None),
        ServerOptions(insecure=True),
        ServerOptions(host="0.0.0.0", token=TOKEN),
    ],
)
def test_what_may_be(options: ServerOptions) -> None:
    check_wires(options)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (ServerOptions(), "gRPC: got no token"),
        (ServerOptions(host="0.0.0.0", grpc_port=None), "neither a token nor TLS"),
        (ServerOptions(token=TOKEN, port=0), "expected a number"),
        (ServerOptions(token=TOKEN, grpc_port=0), "expected a number"),
        (ServerOptions(token=TOKEN, port=None), "got no REST"),
        (ServerOptions(token=TOKEN, metrics_port=9), "got TLS or a metrics port"),
        (
            ServerOptions(token=TOKEN, tls=TlsFiles(certificate=Path("c"), key=Path("k"))),
            "got TLS or a metrics port",
        ),
    ],
)
def test_what_is_refused(options: ServerOptions, reason: str) -> None:
    with pytest.raises(ServeError, match=reason):
        check_wires(options)


def test_what_is_not_protected_is_said() -> None:
    assert wire_warnings(ServerOptions(grpc_port=None)) == []
    (found,) = wire_warnings(ServerOptions(token=TOKEN))
    assert found == "Ray listens for gRPC on every interface, without TLS"
    (found,) = wire_warnings(ServerOptions(insecure=True))
    assert found.endswith("without TLS and without a token")


def test_the_proxies_listen_where_they_are_told() -> None:
    found = proxy_options(ServerOptions(host="localhost", port=80, grpc_port=81))
    assert found["http_options"] == {"host": "127.0.0.1", "port": 80}
    assert found["grpc_options"]["port"] == 81
    assert "grpc_options" not in proxy_options(ServerOptions(grpc_port=None))


def test_the_file_is_yaml_and_says_what_was_meant() -> None:
    yaml = pytest.importorskip("yaml")
    options = ServerOptions(token=TOKEN, port=80, grpc_port=81)
    text = config_file(options, SETTINGS, DEPLOYMENT)
    found = yaml.safe_load(text)
    (application,) = found["applications"]
    assert {key: found[key] for key in found if key != "applications"} == proxy_options(options)
    assert ReplicaSettings.from_json(application["args"]) == SETTINGS
    assert application["deployments"] == [DEPLOYMENT]
    assert "a" * 32 not in text
