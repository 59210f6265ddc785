"""Raw TCP conversations with a server, each bounded in time."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass

import httptools

from tests.serve.load.http_client import HttpAnswer

LIMIT_S = 30.0
"""A server that has neither answered nor hung up by then hangs."""


QUIET_S = 0.05
"""How long nothing comes before a client gives up that does not know whether to expect anything."""


class HangError(AssertionError):
    """The server let a client wait for too long."""


@dataclass(frozen=True)
class Answers:
    """What came back. ``reset``: the server broke the connection instead of closing it."""

    data: bytes
    reset: bool = False

    def http(self) -> list[HttpAnswer]:
        """The responses; they must be HTTP to the last byte."""
        return parse(self.data)


def converse(
    port: int,
    pieces: Sequence[bytes],
    *,
    expect: int | None = None,
    half_close: bool = True,
    host: str = "127.0.0.1",
) -> Answers:
    """Send pieces, read, say that no more is coming, and read to the end.

    To a server a client that says so is one that has left, so this waits for answers first.

    Args:
        port: Of the server.
        pieces: Each is a packet of its own, as far as the network lets it be.
        expect: How many responses to wait for before; None: until nothing comes for a moment.
        half_close: Say that no more is coming; otherwise wait for the server to lose patience.
        host: Of the server.
    """
    with socket.create_connection((host, port), timeout=LIMIT_S) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        data = bytearray()
        try:
            for piece in pieces:
                sock.sendall(piece)
            if half_close:
                if _read(sock, data, expect=expect, quiet_s=QUIET_S if expect is None else LIMIT_S):
                    return Answers(bytes(data))
                sock.shutdown(socket.SHUT_WR)
        except ConnectionError:
            pass  # it has hung up early: what it said before is still to be read
        try:
            if not _read(sock, data, expect=None, quiet_s=LIMIT_S):
                raise HangError(f"neither closed nor answered: had {bytes(data)[:500]!r}")
        except ConnectionError:
            return Answers(bytes(data), reset=True)
        return Answers(bytes(data))


def abandon(port: int, pieces: Sequence[bytes], *, host: str = "127.0.0.1") -> None:
    """Send pieces, then break the connection (RST) without reading."""
    with socket.create_connection((host, port), timeout=LIMIT_S) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        for piece in pieces:
            try:
                sock.sendall(piece)
            except (ConnectionError, BrokenPipeError):
                return


def _read(sock: socket.socket, data: bytearray, *, expect: int | None, quiet_s: float) -> bool:
    """Read on to the end (True), to so many responses, or until nothing comes for ``quiet_s``."""
    until = time.monotonic() + LIMIT_S
    while expect is None or _count_whole(bytes(data)) < expect:
        sock.settimeout(max(0.001, min(quiet_s, until - time.monotonic())))
        try:
            got = sock.recv(1 << 16)
        except TimeoutError:
            return False
        if not got:
            return True
        data += got
    return False


def _count_whole(data: bytes) -> int:
    return sum(answer.complete for answer in parse(data))


class _Several:
    def __init__(self) -> None:
        self.answers: list[HttpAnswer] = []
        self.parser = httptools.HttpResponseParser(self)
        self._parts: list[bytes] = []

    def on_message_begin(self) -> None:
        self.answers.append(HttpAnswer())
        self._parts = []

    def on_header(self, name: bytes, value: bytes) -> None:
        self.answers[-1].headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        self._parts.append(body)

    def on_message_complete(self) -> None:
        answer = self.answers[-1]
        answer.status = self.parser.get_status_code()
        answer.body = b"".join(self._parts)
        answer.complete = True


def parse(data: bytes) -> list[HttpAnswer]:
    """All responses in a stream.

    Raises:
        httptools.HttpParserError: It is not HTTP.
    """
    several = _Several()
    if data:
        several.parser.feed_data(data)
    return several.answers
