"""Whatever bytes come, over either wire: a request that holds together, or an honest refusal."""

from __future__ import annotations

import copy
import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from parnet_deploy.serve.protocol import grpc_codec, rest_codec
from parnet_deploy.serve.protocol.refusal import RefusedError
from tests.serve.protocol.protocol_toys import (
    Tensor,
    binary_body,
    binary_document,
    check_refusal,
    check_request,
    image,
    json_body,
    message,
    with_raw,
)

MANY = settings(max_examples=400)

JSON = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**70), 2**70),
        st.floats(allow_nan=False, allow_infinity=False),
        st.text(max_size=8),
        st.sampled_from(["FP32", "BYTES", "BOOL", "INT8", "image", "priority", "base64"]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)

TEXTS = Tensor("BYTES", (2,), [b"ab", b""], "encoded_image")
LONG = "x" * 5000


def whole_document() -> dict[str, Any]:
    document = binary_document(image(), TEXTS)
    document["inputs"].append({"name": "a", "shape": [2], "datatype": "INT8", "data": [1, 2]})
    document["outputs"] = [{"name": "logits", "parameters": {"classification": 3}}]
    parameters = {"binary_data_output": True, "priority": 1, "timeout": 1000, "sequence_id": 1}
    return {**document, "id": "7", "parameters": parameters}


def rest(body: bytes, header_length: str | None) -> bool:
    """Whether it was a request; anything but a request or a refusal escapes and fails the test."""
    try:
        check_request(rest_codec.decode_request("parnet", "", body, header_length))
    except RefusedError as error:
        check_refusal(error)
        return False
    return True


def grpc(content: bytes) -> bool:
    try:
        check_request(grpc_codec.decode(content))
    except RefusedError as error:
        check_refusal(error)
        return False
    return True


@st.composite
def mutated(draw: st.DrawFn, content: bytes) -> bytes:
    """Bytes with some replaced, cut or put in."""
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(content)))
        end = draw(st.one_of(st.just(at), st.just(at + 1), st.integers(at, len(content))))
        content = content[:at] + draw(st.binary(max_size=4)) + content[end:]
    return content


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of all values in a JSON document."""
    keys: Any = value if isinstance(value, dict) else ()
    if isinstance(value, list):
        keys = range(len(value))
    return [path, *(found for key in keys for found in places(value[key], (*path, key)))]


def put(document: Any, path: tuple[Any, ...], value: Any) -> Any:
    """The document with another value at a path."""
    if not path:
        return value
    found = copy.deepcopy(document)
    inner = found
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return found


def test_the_untouched_ones_are_requests() -> None:
    assert rest(*with_raw(whole_document(), image(), TEXTS))
    assert rest(json_body(image()), None)
    assert grpc(message(image(), TEXTS).SerializeToString())
    assert grpc(message(image(), TEXTS, raw=False).SerializeToString())


@MANY
@given(st.binary(), st.one_of(st.none(), st.text(), st.integers(-1, 64).map(str)))
def test_any_bytes_and_any_header(body: bytes, header_length: str | None) -> None:
    assert not rest(body, header_length)


@MANY
@given(JSON)
def test_any_json(value: Any) -> None:
    rest(json.dumps(value).encode(), None)


@MANY
@given(st.data())
def test_any_json_at_any_place_of_a_request(data: st.DataObject) -> None:
    document = whole_document()
    for _ in range(data.draw(st.integers(1, 2))):
        path = data.draw(st.sampled_from(places(document)))
        document = put(document, path, data.draw(st.one_of(JSON, st.just(LONG))))
    rest(*with_raw(document, image(), TEXTS))


@MANY
@given(mutated(binary_body(image(), TEXTS)[0]), st.integers(-3, 3))
def test_bodies_with_changed_bytes(body: bytes, shift: int) -> None:
    rest(body, str(int(binary_body(image(), TEXTS)[1]) + shift))


@MANY
@given(mutated(json_body(image(1, 1, 2, 2), nested=True, id="7")))
def test_json_bodies_with_changed_bytes(body: bytes) -> None:
    rest(body, None)


@MANY
@given(st.binary())
def test_any_bytes_as_a_message(content: bytes) -> None:
    grpc(content)


@MANY
@given(
    st.one_of(
        mutated(message(image(), TEXTS).SerializeToString()),
        mutated(message(image(1, 2), TEXTS, raw=False).SerializeToString()),
    )
)
def test_messages_with_changed_bytes(content: bytes) -> None:
    grpc(content)
