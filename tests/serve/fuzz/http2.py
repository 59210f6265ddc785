"""As much of HTTP/2 as it takes to send a gRPC server what no client would (RFC 9113, 7541)."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY = 0x0, 0x1, 0x3, 0x4, 0x6, 0x7
END_STREAM, END_HEADERS = 0x1, 0x4


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """One frame."""
    length = struct.pack(">I", len(payload))[1:]
    return length + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def header_block(headers: Mapping[str, str]) -> bytes:
    """Headers, each a literal without index and without Huffman code."""
    return b"".join(
        b"\x00" + _string(name.encode("latin-1")) + _string(value.encode("latin-1"))
        for name, value in headers.items()
    )


def _string(data: bytes) -> bytes:
    if len(data) < 127:
        return bytes([len(data)]) + data
    rest, size = len(data) - 127, bytearray([127])
    while rest >= 128:
        size.append(rest % 128 + 128)
        rest //= 128
    return bytes([*size, rest]) + data


def call(path: str, *, stream: int = 1, **changed: str | None) -> bytes:
    """The beginning of a gRPC call, with some headers changed or (None) left out."""
    headers: dict[str, str | None] = {
        ":method": "POST",
        ":scheme": "http",
        ":path": path,
        ":authority": "localhost",
        "te": "trailers",
        "content-type": "application/grpc",
    }
    headers |= {name.replace("_", "-"): value for name, value in changed.items()}
    block = header_block({name: value for name, value in headers.items() if value is not None})
    return frame(HEADERS, END_HEADERS, stream, block)


def message(content: bytes, *, compressed: int = 0, length: int | None = None) -> bytes:
    """A length-prefixed gRPC message."""
    size = len(content) if length is None else length
    return bytes([compressed]) + struct.pack(">I", size) + content


def opening() -> bytes:
    """Preface and empty settings."""
    return PREFACE + frame(SETTINGS, 0, 0)


def frames(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """Kind, flags, stream and payload of each whole frame."""
    at = 0
    while at + 9 <= len(data):
        length = int.from_bytes(data[at : at + 3], "big")
        kind, flags = data[at + 3], data[at + 4]
        stream = int.from_bytes(data[at + 5 : at + 9], "big") & 0x7FFFFFFF
        if at + 9 + length > len(data):
            return
        yield kind, flags, stream, data[at + 9 : at + 9 + length]
        at += 9 + length
