"""What hypothesis makes of a good infer request: documents, bodies, heads that are nearly right."""

from __future__ import annotations

import copy
import gzip
import json
import zlib
from typing import Any

from hypothesis import strategies as st

from tests.serve.load.known import Known, rest_request

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(
        ["FP32", "BYTES", "INT64", "BOOL", "FP16", "BF16", "image", "logits", "", "1"]
    ),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4)
    ),
    max_leaves=8,
)
NUMBERS = (-1, 0, 1, 2, 3, 4, 2**31 - 1, 2**31, 2**32, 2**53, 2**63 - 1, 2**63, 2**64, 10**30)
INTERESTING = (*NUMBERS, *(str(n) for n in NUMBERS[:4]), 1.5, 1e400, None, True, "", [], {}, [[]])


@st.composite
def documents(draw: st.DrawFn, good: dict[str, Any]) -> Any:
    """The good document with a few of its values replaced, removed or doubled."""
    document = copy.deepcopy(good)
    for _ in range(draw(st.integers(0, 3))):
        places = list(_places(document))
        if not places:
            break
        holder, key = draw(st.sampled_from(places))
        action = draw(st.sampled_from(["replace", "interesting", "remove", "double", "add"]))
        if action == "replace":
            holder[key] = draw(JSON)
        elif action == "interesting":
            holder[key] = draw(st.sampled_from(INTERESTING))
        elif action == "remove":
            del holder[key]
        elif action == "double" and isinstance(holder, list):
            holder.append(copy.deepcopy(holder[key]))
        elif isinstance(holder, dict):
            name = draw(st.sampled_from(["data", "parameters", "priority", "timeout", "id", "x"]))
            holder[name] = draw(JSON)
    return document


def _places(value: Any) -> list[tuple[Any, Any]]:
    found: list[tuple[Any, Any]] = []
    items: list[tuple[Any, Any]] = []
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))
    for key, inner in items:
        found.append((value, key))
        found += _places(inner)
    return found


@st.composite
def infer_requests(draw: st.DrawFn, known: Known) -> tuple[dict[str, str], bytes]:
    """Headers and body of an infer request; the framing of HTTP itself is right."""
    encoded = draw(st.booleans())
    headers, body = rest_request(known, 0, "f", encoded=encoded)
    end = int(headers["Inference-Header-Content-Length"])
    document, raw = json.loads(body[:end]), body[end:]
    raw = draw(
        st.just(raw)
        | st.binary(max_size=64)
        | st.integers(0, len(raw)).map(lambda n: raw[:n])
        | st.integers(1, 9).map(lambda n: raw + bytes(n))
        | st.integers(0, len(raw) - 1).map(lambda n: raw[:n] + b"\xff\xff\xff\xff" + raw[n + 4 :])
    )
    changed = draw(documents(document))
    text = json.dumps(changed).encode("utf-8", "surrogatepass")
    text = draw(
        st.just(text)
        | st.integers(0, len(text)).map(lambda n: text[:n])
        | st.binary(max_size=40)
        | st.just(b"[" * 50_000)
        | st.just(b'{"a":' * 20_000)
        | st.just(text.replace(b"FP32", b"\xff\xfe"))
        | st.just(b"\xef\xbb\xbf" + text)
    )
    length = draw(
        st.just(str(len(text)))
        | st.sampled_from([len(text) + len(raw), len(text) - 1, *NUMBERS]).map(str)
        | st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=12)
        | st.none()
    )
    sent = {} if length is None else {"Inference-Header-Content-Length": length}
    content = text + raw
    coding = draw(st.sampled_from(["", "", "", "gzip", "deflate", "identity", "br", "gzip, gzip"]))
    if coding:
        sent["Content-Encoding"] = coding
        content = draw(
            st.sampled_from([content, gzip.compress(content), zlib.compress(content)])
            | st.integers(1, 30).map(lambda n: gzip.compress(content)[:-n])
            | st.integers(0, 40).map(lambda n: _flip(gzip.compress(content), n))
        )
    if draw(st.booleans()):
        sent["Accept-Encoding"] = draw(
            st.sampled_from(["gzip", "deflate;q=0.5", "*;q=0", "gzip;q=x", ",,;;q=", "br"])
        )
    if draw(st.booleans()):
        kinds = ["application/json", "text/plain", "multipart/form-data", "\xff", ""]
        sent["Content-Type"] = draw(st.sampled_from(kinds))
    return sent, content


def _flip(data: bytes, at: int) -> bytes:
    at %= len(data)
    return data[:at] + bytes([data[at] ^ 0x41]) + data[at + 1 :]


TOKEN = st.text(st.sampled_from("!#$%&'*+-.^_`|~09AZaz"), min_size=1, max_size=12)
LINE = st.binary(max_size=60).map(lambda b: b.replace(b"\n", b"").replace(b"\r", b""))
HEADER = st.tuples(
    TOKEN.map(str.encode)
    | LINE
    | st.sampled_from(
        [
            *(b"Content-Length", b"Transfer-Encoding", b"Connection", b"Host", b"Expect"),
            *(b"Upgrade", b"Authorization", b"X-Request-Id", b"Content-Encoding", b"Range"),
            *(b"Inference-Header-Content-Length", b"Cookie", b"TE", b"Trailer", b"Content-Type"),
        ]
    ),
    LINE
    | st.sampled_from(
        [
            *(b"0", b"-1", b"+5", b"5, 5", b"0x10", b"1e3", b"99999999999999999999", b" 5 "),
            *(b"chunked", b"gzip, chunked", b"chunked, chunked", b"identity", b"close"),
            *(b"keep-alive", b"upgrade", b"100-continue", b"websocket", b"h2c", b"Bearer x"),
        ]
    ),
)
METHOD = st.sampled_from(
    [b"GET", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"TRACE", b"CONNECT", b"PATCH", b"get", b"PRI"]
) | TOKEN.map(str.encode)
PATHS = (
    st.sampled_from(
        [
            *(
                b"/",
                b"/card",
                b"/metrics",
                b"/v2",
                b"/v2/",
                b"/v2/health/live",
                b"/v2/health/ready",
            ),
            *(b"/v2/models/small", b"/v2/models/small/infer", b"/v2/models/small/versions/1/infer"),
            *(b"/v2/models/small/versions/9", b"/v2/models/%FF/infer", b"/v2/models/a%2Fb/infer"),
            *(b"/v2/models/%", b"/v2/models/%zz/config", b"/v2/models/../../etc/passwd", b"*"),
            *(b"//v2", b"/v2/models/small/infer?x=%00", b"http://elsewhere/v2", b"/\xff\xfe", b""),
            *(b"/v2/repository/index", b"/v2/repository/models/small/load", b"/v2/models/stats"),
            *(b"/v2/systemsharedmemory/status", b"/v2/trace/setting", b"/v2/logging", b"/v2#x"),
            b"/v2/models/" + b"a" * 7000,
            b"/" + b"v2/" * 2000,
        ]
    )
    | LINE
)
VERSION = st.sampled_from(
    [*[b"HTTP/1.1"] * 6, b"HTTP/1.0", b"HTTP/2.0", b"HTTP/0.9", b"HTTP/1.2", b"HTTP/9.9", b"", b"X"]
)


@st.composite
def heads(draw: st.DrawFn) -> bytes:
    """A request's head, nearly or not at all right, with a body of some bytes."""
    line = b" ".join([draw(METHOD), draw(PATHS), draw(VERSION)])
    headers = draw(st.lists(HEADER, max_size=8))
    if draw(st.integers(0, 15)) == 0:
        headers = headers + [(b"X-Many", b"1")] * 200
    if draw(st.integers(0, 15)) == 0:
        headers = [*headers, (b"X-Long", b"x" * 20_000)]
    end = draw(st.sampled_from([b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r"]))
    text = line + end + b"".join(name + b": " + value + end for name, value in headers)
    return text + draw(st.sampled_from([end, end, end, b""])) + draw(st.binary(max_size=80))
