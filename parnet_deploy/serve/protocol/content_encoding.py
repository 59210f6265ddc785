"""Compressed bodies over HTTP: gzip and deflate, both ways, and never more than a cap of bytes.

Source: RFC 9110 sections 8.4 and 12.5.3, RFC 1950, 1951 and 1952.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from typing import Literal, NoReturn

from .wording import refuse, shown

Coding = Literal["gzip", "deflate"]

_WBITS: dict[Coding, int] = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}

_ALIASES: dict[str, Coding] = {"gzip": "gzip", "x-gzip": "gzip", "deflate": "deflate"}

_LEVEL = 1
"""Answers are small and waited for: the fastest level."""


def decompress(body: bytes, content_encoding: str | None, limit_bytes: int) -> bytes:
    """The body as it was before its Content-Encoding.

    It never makes more than ``limit_bytes`` and one byte, whatever the body would become. zlib
    works without the GIL: call it in a thread, for a whole image takes it milliseconds.

    Raises:
        RefusedError: invalid: an unknown coding, or a body that is not what it says. too-large:
            more than ``limit_bytes``.
    """
    coding = _coding_of(content_encoding)
    if coding is None:
        return body
    stream = zlib.decompressobj(_WBITS["gzip"] if coding == "gzip" else _deflate_wbits(body))
    try:
        found = stream.decompress(body, limit_bytes + 1)
    except zlib.error:
        _refuse_body(coding, "other bytes")
    if len(found) > limit_bytes:
        refuse(
            f"Body of the request with {coding} undone",
            got=f"more than {limit_bytes} bytes",
            expected=f"at most {limit_bytes}",
            step="Send fewer images at a time",
            kind="too-large",
        )
    if not stream.eof:
        _refuse_body(coding, "a stream that ends early")
    if stream.unused_data:
        _refuse_body(coding, f"{len(stream.unused_data)} bytes after the end of the stream")
    return found


def compress(parts: Iterable[bytes], coding: Coding) -> bytes:
    """The parts of an answer as one compressed body."""
    stream = zlib.compressobj(_LEVEL, wbits=_WBITS[coding])
    return b"".join([*map(stream.compress, parts), stream.flush()])


def choose(accept_encoding: str | None) -> Coding | None:
    """The coding that a client likes best by its Accept-Encoding; None: as it is.

    Of two that it likes equally, gzip. A header that cannot be read is one that asks for nothing.
    """
    if not accept_encoding:
        return None
    weights: dict[str, float] = {}
    for item in accept_encoding.lower().split(","):
        name, *parameters = (part.strip() for part in item.split(";"))
        weights[_ALIASES.get(name, name)] = _weight(parameters)
    others = weights.get("*", 0.0)
    gzip, deflate = weights.get("gzip", others), weights.get("deflate", others)
    best = max(gzip, deflate)
    if best == 0 or best < weights.get("identity", 0.0):
        return None
    return "gzip" if gzip == best else "deflate"


def _coding_of(content_encoding: str | None) -> Coding | None:
    name = (content_encoding or "identity").strip().lower()
    if name == "identity":
        return None
    if name in _ALIASES:
        return _ALIASES[name]
    refuse(
        "Content-Encoding of the request",
        got=shown(name),
        expected="one of gzip, deflate, identity",
        step="Compress the body in one of these ways, once, or not at all",
    )


def _deflate_wbits(body: bytes) -> int:
    """Deflate is in a zlib wrapper, but some clients send it bare: its first two bytes tell."""
    wrapped = len(body) >= 2 and body[0] & 0x0F == 8 and int.from_bytes(body[:2], "big") % 31 == 0
    return zlib.MAX_WBITS if wrapped else -zlib.MAX_WBITS


def _weight(parameters: list[str]) -> float:
    """The q among an item's parameters; 1 without, 0 if it is no number from 0 to 1."""
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                found = float(value)
            except ValueError:
                return 0.0
            return found if 0 <= found <= 1 else 0.0
    return 1.0


def _refuse_body(coding: Coding, got: str) -> NoReturn:
    expected = f"one whole {coding} stream, as its Content-Encoding says"
    refuse("Body of the request", got=got, expected=expected, step="Compress it whole, once")
