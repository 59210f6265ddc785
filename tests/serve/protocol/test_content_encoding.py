"""Compressed bodies: whole streams only, never more than the cap, and what a client likes best."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parnet_deploy.serve.protocol.content_encoding import choose, compress, decompress
from parnet_deploy.serve.protocol.refusal import RefusedError
from tests.serve.protocol.protocol_toys import check_refusal

MIB = 2**20


def bare(content: bytes) -> bytes:
    stream = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return stream.compress(content) + stream.flush()


FORMS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip": ("gzip", gzip.compress),
    "x-gzip": ("X-GZip ", gzip.compress),
    "zlib": ("deflate", zlib.compress),
    "bare deflate": ("Deflate", bare),
}


def refused(body: bytes, coding: str, limit_bytes: int = MIB, kind: str = "invalid") -> str:
    with pytest.raises(RefusedError) as caught:
        decompress(body, coding, limit_bytes)
    check_refusal(caught.value)
    assert caught.value.kind == kind
    return str(caught.value)


@pytest.mark.parametrize("form", FORMS)
@given(content=st.binary())
def test_what_was_compressed_comes_out(form: str, content: bytes) -> None:
    name, forward = FORMS[form]
    assert decompress(forward(content), name, len(content)) == content


@pytest.mark.parametrize("name", [None, "", "identity", " Identity"])
def test_a_plain_body_is_passed_on(name: str | None) -> None:
    assert decompress(b"\x1f\x8b", name, 0) == b"\x1f\x8b"


@pytest.mark.parametrize("form", FORMS)
def test_one_byte_over_the_cap(form: str) -> None:
    name, forward = FORMS[form]
    body = forward(bytes(1000))
    assert decompress(body, name, 1000) == bytes(1000)
    assert "got more than 999 bytes" in refused(body, name, 999, kind="too-large")
    refused(body, name, 0, kind="too-large")


@pytest.mark.parametrize("form", FORMS)
def test_a_bomb_is_refused_before_it_is_in_memory(form: str) -> None:
    name, forward = FORMS[form]
    bomb = forward(bytes(64 * MIB))
    assert len(bomb) < MIB
    tracemalloc.start()
    try:
        refused(bomb, name, MIB, kind="too-large")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * MIB


@pytest.mark.parametrize("form", FORMS)
def test_a_stream_cut_anywhere_is_refused(form: str) -> None:
    name, forward = FORMS[form]
    body = forward(bytes(range(256)))
    for size in range(len(body)):
        refused(body[:size], name)


@pytest.mark.parametrize("form", FORMS)
def test_nothing_may_follow_the_stream(form: str) -> None:
    name, forward = FORMS[form]
    body = forward(b"abc")
    assert "got 1 bytes after the end of the stream" in refused(body + b"x", name)
    refused(body + body, name)


@pytest.mark.parametrize("form", ["gzip", "zlib"])
def test_a_changed_byte_is_seen(form: str) -> None:
    name, forward = FORMS[form]
    body = forward(bytes(range(256)))
    refused(body[:-1] + bytes([body[-1] ^ 1]), name)
    refused(b"\xff" + body[1:], name)


@pytest.mark.parametrize("form", FORMS)
@given(body=st.binary())
def test_arbitrary_bytes(form: str, body: bytes) -> None:
    try:
        decompress(body, FORMS[form][0], 64)
    except RefusedError as error:
        check_refusal(error)


@pytest.mark.parametrize("name", ["br", "zstd", "gzip, deflate", "gzip,gzip", "x" * 500, "*"])
def test_codings_that_are_not_undone(name: str) -> None:
    assert "expected one of gzip, deflate, identity" in refused(b"", name)


@given(st.lists(st.binary(), max_size=4))
def test_answers_in_parts(parts: list[bytes]) -> None:
    content = b"".join(parts)
    assert gzip.decompress(compress(parts, "gzip")) == content
    assert zlib.decompress(compress(parts, "deflate")) == content


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, None),
        ("", None),
        ("gzip", "gzip"),
        ("GZIP", "gzip"),
        ("x-gzip", "gzip"),
        ("deflate", "deflate"),
        ("deflate, gzip", "gzip"),
        ("gzip, deflate, br", "gzip"),
        ("deflate;q=1.0, gzip;q=0.5", "deflate"),
        ("gzip;q=0.2,deflate;q=0.1", "gzip"),
        ("gzip ; q=0", None),
        ("gzip;q=0, *", "deflate"),
        ("*", "gzip"),
        ("*;q=0", None),
        ("identity", None),
        ("identity;q=1, gzip;q=0.5", None),
        ("identity;q=0.5, gzip;q=1", "gzip"),
        ("identity, gzip", "gzip"),
        ("identity;q=0", None),
        ("br", None),
        ("gzip;q=nonsense", None),
        ("gzip;q=nan", None),
        ("gzip;q=2", None),
        ("gzip;q=-1", None),
        ("gzip;x=1;q=0", None),
        (";;,,;q=", None),
    ],
)
def test_what_a_client_likes_best(header: str | None, expected: str | None) -> None:
    assert choose(header) == expected


@given(st.text())
def test_any_header_has_an_answer(header: str) -> None:
    assert choose(header) in (None, "gzip", "deflate")
