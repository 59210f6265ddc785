"""One real server for all fuzz tests, in a process of its own, with short patience."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import pytest
from hypothesis import HealthCheck, settings

from tests.serve.fuzz.sockets import converse
from tests.serve.load.deployments import make_deployment
from tests.serve.load.http_client import post
from tests.serve.load.known import (
    Known,
    grpc_logits,
    grpc_request,
    make_known,
    rest_logits,
    rest_request,
)
from tests.serve.load.processes import Running, serving
from tests.serve.load.watch import look

LIMITS = {
    "body_bytes": 2**20,
    "head_bytes": 8192,
    "headers": 50,
    "connections": 200,
    "head_s": 1.0,
    "body_s": 1.0,
    "idle_s": 1.0,
    "write_s": 2.0,
    "linger_s": 0.5,
}
INFER = "/inference.GRPCInferenceService/ModelInfer"

_LONG = int(os.environ.get("FUZZ_EXAMPLES", "0"))


def fuzzed(examples: int) -> settings:
    """So many examples, always the same; FUZZ_EXAMPLES: so many, new ones each time."""
    return settings(
        max_examples=_LONG or examples,
        derandomize=not _LONG,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


@dataclass
class Target:
    """The server under fire."""

    running: Running
    known: Known
    channel: grpc.Channel = field(init=False)

    def __post_init__(self) -> None:
        self.channel = grpc.insecure_channel(f"{self.running.host}:{self.running.grpc_port}")

    @property
    def path(self) -> str:
        """Where inference is asked for."""
        return f"/v2/models/{self.known.model}/infer"

    def good_request(self, index: int = 0, request_id: str = "good", **headers: str) -> bytes:
        """A whole request that must be answered."""
        own, body = rest_request(self.known, index, request_id, encoded=index % 2 == 1)
        return post(self.path, own | headers, len(body)) + body

    def still_answers(self) -> None:
        """It answers a good request on each wire, rightly."""
        (answer,) = converse(self.running.port, [self.good_request()], expect=1).http()
        assert answer.status == 200, answer.body
        request_id, logits = rest_logits(answer.headers, answer.body)
        assert request_id == "good"
        assert self.known.is_right(0, logits)
        content = self.channel.unary_unary(INFER)(
            grpc_request(self.known, 1, "g", encoded=True), timeout=30
        )
        assert self.known.is_right(1, grpc_logits(content)[1])

    def settle(self, fds: int) -> None:
        """Wait until its file descriptors are those of before, bounded."""
        until = time.monotonic() + 30
        while look(self.running.pid).fds > fds:
            assert time.monotonic() < until, "file descriptors are left over"
            with socket.create_connection((self.running.host, self.running.port), timeout=10) as s:
                s.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                while s.recv(4096):
                    pass


@pytest.fixture(scope="session")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """Started once; at the end it must be alive, with no traceback in its log."""
    place: Path = tmp_path_factory.mktemp("fuzz")
    deployment = make_deployment(place, side=32, name="small")
    known = make_known(deployment, 4)
    with serving([deployment], place, limits=LIMITS) as running:
        found = Target(running, known)
        found.still_answers()
        yield found
        found.still_answers()
        found.channel.close()
        assert "Traceback" not in running.complaints(), running.complaints()[-4000:]


@pytest.fixture(autouse=True)
def _unharmed(target: Target) -> Iterator[None]:
    """After each test the server answers as before and holds nothing more."""
    before, said = look(target.running.pid).fds, len(target.running.complaints())
    yield
    target.still_answers()
    target.settle(before + 1)
    complaints = target.running.complaints()[said:]
    assert "Traceback" not in complaints, complaints[-4000:]


def check_refusal(status: int, headers: dict[str, str], body: bytes) -> None:
    """An answer that is no success must be an honest refusal in JSON, and never a 500."""
    assert status != 500, body
    if status >= 400:
        assert status in {400, 401, 404, 405, 408, 411, 413, 414, 415, 417, 431, 501, 503, 505}, (
            status,
            body,
        )
        error = json.loads(body)["error"]
        assert isinstance(error, str)
        assert error.strip()
        assert headers["content-type"].startswith("application/json")
