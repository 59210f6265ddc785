"""A server over a fake service, and HTTP as bytes on a socket, so that anything can be sent."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from parnet_deploy.serve.server.options import ServerOptions
from parnet_deploy.serve.server.server import Server
from tests.serve.fake_service import FakeService

HANG_S = 30.0
"""After so long a test fails instead of hanging; nothing is measured by it."""

IMAGE = np.random.default_rng(5).random((2, 3, 8, 8), np.float32)
INFER = "/v2/models/toy/infer"


@dataclass(frozen=True)
class Reply:
    """An HTTP answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        """The message of a refusal, which is a document of just that."""
        document = self.json()
        assert list(document) == ["error"]
        return document["error"]


class Connection:
    """One TCP connection to a server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def reply(self, method: str = "GET") -> Reply:
        """Read one answer."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        status, *lines = head.strip().split("\r\n")
        headers = {}
        for line in lines:
            name, _, value = line.partition(": ")
            assert name.lower() not in headers, f"{name} twice"
            headers[name.lower()] = value
        body = b""
        if method != "HEAD":
            body = await self.reader.readexactly(int(headers["content-length"]))
        return Reply(int(status.split()[1]), headers, body)

    async def ask(
        self, path: str, body: bytes = b"", *, method: str | None = None, **headers: str
    ) -> Reply:
        method = method or ("POST" if body else "GET")
        self.send(request(path, body, method=method, **headers))
        return await self.reply(method)

    async def ended(self) -> bytes:
        """Wait until the server closes; what it sent before."""
        try:
            return await self.reader.read()
        except ConnectionResetError:
            return b""

    @property
    def address(self) -> str:
        """The client's own address and port, as the server's log has them."""
        return "{}:{}".format(*self.writer.get_extra_info("sockname"))

    def abort(self) -> None:
        self.writer.transport.abort()


def request(path: str, body: bytes = b"", *, method: str = "POST", **headers: str) -> bytes:
    """A request as bytes; ``_`` in the name of a header stands for ``-``."""
    lines = [f"{method} {path} HTTP/1.1", "Host: test"]
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    if body and "Content-Length" not in names and "Transfer-Encoding" not in names:
        names["Content-Length"] = str(len(body))
    lines += [f"{name}: {value}" for name, value in names.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


@asynccontextmanager
async def connected(server: Server, port: int | None = None, tls: ssl.SSLContext | None = None):
    """A connection to the REST port, or another."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port or server.port, ssl=tls)
    connection = Connection(reader, writer)
    try:
        yield connection
    finally:
        connection.abort()


Body = Callable[[Server, FakeService], Awaitable[None]]


def serve(body: Body, service_kind: type[FakeService] = FakeService, **options: Any) -> None:
    """Run a test against a server on free ports."""
    pages = options.pop("pages", None)
    metrics = options.pop("metrics", None)
    tracer = options.pop("tracer", None)
    on_refused = options.pop("on_refused", None)

    async def main() -> None:
        service = service_kind()
        settings = ServerOptions(**{"port": 0, "grpc_port": None, "drain_s": 0.0, **options})
        server = Server(
            service, settings, pages=pages, metrics=metrics, tracer=tracer, on_refused=on_refused
        )
        async with server:
            await asyncio.wait_for(body(server, service), HANG_S)
        assert service.closed

    asyncio.run(main())


def json_body(image: np.ndarray = IMAGE, **more: Any) -> bytes:
    """A request of JSON alone."""
    tensor = {
        "name": "image",
        "shape": list(image.shape),
        "datatype": "FP32",
        "data": image.ravel().tolist(),
    }
    return json.dumps({"inputs": [tensor], **more}).encode()


def binary_body(image: np.ndarray = IMAGE, **more: Any) -> tuple[bytes, str]:
    """A request with a raw tensor, and its ``Inference-Header-Content-Length``."""
    raw = image.tobytes()
    tensor = {
        "name": "image",
        "shape": list(image.shape),
        "datatype": "FP32",
        "parameters": {"binary_data_size": len(raw)},
    }
    parameters = {"binary_data_output": True}
    head = json.dumps({"inputs": [tensor], "parameters": parameters, **more}).encode()
    return head + raw, str(len(head))


def expected(image: np.ndarray = IMAGE) -> np.ndarray:
    """What the fake service makes of images."""
    sums = image.reshape(len(image), -1).sum(axis=1, dtype=np.float64)
    return np.outer(sums, np.arange(1, 5)).astype(np.float32)


def logits_of(reply: Reply) -> np.ndarray:
    """The answer's logits, however they were sent."""
    assert reply.status == 200, reply.body
    length = reply.headers.get("inference-header-content-length")
    document = json.loads(reply.body[: int(length)] if length else reply.body)
    (output,) = document["outputs"]
    if length:
        raw = reply.body[int(length) :]
        assert output["parameters"]["binary_data_size"] == len(raw)
        return np.frombuffer(raw, np.float32).reshape(output["shape"])
    return np.array(output["data"], np.float32).reshape(output["shape"])
