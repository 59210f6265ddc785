"""Reading a request's body: no more than the limit, as it is sent and decompressed."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from ..protocol.content_encoding import decompress
from ..protocol.refusal import RefusedError
from .answer import Receive


class ClientGoneError(Exception):
    """The client closed the connection: there is nobody to answer."""


async def read_body(receive: Receive, headers: Mapping[bytes, bytes], *, limit: int) -> bytes:
    """The whole body, decompressed.

    Raises:
        RefusedError: It is larger than ``limit``, or its encoding is not what the header says.
        ClientGoneError: The client closed the connection.
    """
    raw = await _read_raw(receive, headers, limit)
    encoding = headers.get(b"content-encoding")
    if not encoding:
        return raw
    return await asyncio.to_thread(decompress, raw, encoding.decode("latin-1"), limit)


async def _read_raw(receive: Receive, headers: Mapping[bytes, bytes], limit: int) -> bytes:
    announced = headers.get(b"content-length", b"0")
    if announced.isdigit() and int(announced) > limit:
        raise _too_large(f"{int(announced)} bytes", limit)
    message = await receive()
    if message["type"] != "http.request":
        raise ClientGoneError
    first: bytes = message.get("body", b"")
    if not message.get("more_body", False):
        if len(first) > limit:
            raise _too_large(f"{len(first)} bytes", limit)
        return first
    chunks, size = [first], len(first)
    while message.get("more_body", False) and size <= limit:
        message = await receive()
        if message["type"] != "http.request":
            raise ClientGoneError
        chunks.append(message.get("body", b""))
        size += len(chunks[-1])
    if size > limit:
        raise _too_large(f"more than {limit} bytes", limit)
    return b"".join(chunks)


def _too_large(got: str, limit: int) -> RefusedError:
    return RefusedError(
        "too-large",
        f"body: got {got}, expected at most {limit}. Send fewer images in one request, or start "
        "the server with a larger --max-body-mib.",
    )
