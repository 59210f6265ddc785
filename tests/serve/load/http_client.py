"""One HTTP/1.1 connection over plain asyncio streams: as thin as a client that measures must be."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import httptools

LIMIT_S = 60.0
"""No server may leave a client waiting for longer: it counts as a hang."""


@dataclass
class HttpAnswer:
    """A response; header names are in lower case."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    complete: bool = False
    keeps_open: bool = True


class _Collector:
    """What httptools calls while it reads a response."""

    def __init__(self) -> None:
        self.answer = HttpAnswer()
        self.parts: list[bytes] = []
        self.parser = httptools.HttpResponseParser(self)

    def on_header(self, name: bytes, value: bytes) -> None:
        self.answer.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        self.parts.append(body)

    def on_message_complete(self) -> None:
        self.answer.body = b"".join(self.parts)
        self.answer.status = self.parser.get_status_code()
        self.answer.keeps_open = self.parser.should_keep_alive()  # only known now
        self.answer.complete = True


class HttpClient:
    """A connection that is made when it is needed and again when the server has closed it."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def connect(self) -> None:
        """Connect, if it is not."""
        if self._streams is None:
            opening = asyncio.open_connection(self._host, self._port)
            self._streams = await asyncio.wait_for(opening, LIMIT_S)

    async def ask(self, *parts: bytes) -> HttpAnswer:
        """Send a whole request and read its response.

        Raises:
            OSError: The connection broke.
            TimeoutError: No response in ``LIMIT_S``.
        """
        await self.connect()
        assert self._streams is not None
        reader, writer = self._streams
        try:
            writer.writelines(parts)
            answer = await asyncio.wait_for(read_answer(reader), LIMIT_S)
        except BaseException:
            self.close()
            raise
        if not answer.keeps_open:
            self.close()
        return answer

    def close(self) -> None:
        """Let go of the connection, at once. Idempotent."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


async def read_answer(reader: asyncio.StreamReader) -> HttpAnswer:
    """Read one response.

    Raises:
        ConnectionError: The connection ended first.
        httptools.HttpParserError: What came is not HTTP.
    """
    collector = _Collector()
    while not collector.answer.complete:
        data = await reader.read(1 << 16)
        if not data:
            raise ConnectionError("closed before the whole response was there")
        collector.parser.feed_data(data)
    return collector.answer


def post(path: str, headers: dict[str, str], length: int) -> bytes:
    """The head of a POST."""
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", f"Content-Length: {length}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
