"""The route that does the work: POST /v2/models/{model}/infer. Raw ASGI: no request object."""

from __future__ import annotations

import asyncio
import time

from ..protocol.content_encoding import choose, compress
from ..protocol.contract import Arrival
from ..protocol.refusal import RefusedError
from ..protocol.request import InferResponse, Timings
from ..protocol.rest_codec import decode_request, encode_response
from ..security.limits import Limits
from ..shells.shell import Shell
from .answer import JSON, Answer, Headers, Receive
from .body import read_body

_BINARY = (b"content-type", b"application/octet-stream")
_DIGITS = 12
_LEAST_TO_COMPRESS = 256
_INLINE_BYTES = 64 * 1024  # compressed on the event loop if it is not more than this


async def infer(
    shell: Shell,
    model: str,
    version: str,
    headers: dict[bytes, bytes],
    receive: Receive,
    *,
    request_id: str,
    at_s: float,
    limits: Limits,
) -> tuple[Answer, Timings]:
    """Read, decode, ask, encode.

    The headers are looked at for the codec's sake only; the Content-Type never is: the clients of
    the protocol send none.

    Raises:
        RefusedError: It cannot be answered.
        ClientGoneError: There is nobody left to answer.
    """
    body = await read_body(receive, headers, limit=limits.body_bytes)
    length = headers.get(b"inference-header-content-length")
    _check_json(len(body), length, limits)
    request = decode_request(
        model, version, body, None if length is None else length.decode("latin-1")
    )
    parent = headers.get(b"traceparent")
    response = await shell.infer(
        request,
        Arrival(wire="rest", at_s=at_s),
        request_id,
        None if parent is None else parent.decode("latin-1"),
    )
    return await _encode(response, headers.get(b"accept-encoding"), at_s), response.timings


def _check_json(size: int, length: bytes | None, limits: Limits) -> None:
    if length is not None and length.isdigit() and len(length) <= _DIGITS:
        size = min(size, int(length))  # where it is more, or no number, the codec refuses it
    if size > limits.json_bytes:
        raise RefusedError(
            "too-large",
            f"body: got {size} bytes of JSON, expected at most {limits.json_bytes}. Send tensors "
            "raw, behind the JSON (binary_data_size), or fewer images in one request.",
        )


async def _encode(response: InferResponse, accepted: bytes | None, at_s: float) -> Answer:
    parts, header_length = encode_response(response)
    headers: Headers = [JSON if header_length is None else _BINARY]
    if header_length is not None:
        headers.append((b"inference-header-content-length", b"%d" % header_length))
    size = sum(map(len, parts))
    coding = None
    if accepted is not None and size >= _LEAST_TO_COMPRESS:
        coding = choose(accepted.decode("latin-1"))
    if coding is None:
        body = b"".join(parts)
    else:
        headers.append((b"content-encoding", coding.encode("ascii")))
        if size <= _INLINE_BYTES:
            body = compress(parts, coding)
        else:
            body = await asyncio.to_thread(compress, parts, coding)
    headers.append((b"server-timing", _server_timing(response.timings, at_s)))
    return Answer(headers=tuple(headers), body=body)


def _server_timing(timings: Timings, at_s: float) -> bytes:
    """Milliseconds, as browsers' developer tools show them."""
    return (
        f"prepare;dur={1e3 * timings.prepare_s:.3f}, queue;dur={1e3 * timings.queue_s:.3f}, "
        f"infer;dur={1e3 * timings.infer_s:.3f}, "
        f"total;dur={1e3 * (time.perf_counter() - at_s):.3f}, "
        f'batch;desc="{timings.batch}"'
    ).encode("ascii")
