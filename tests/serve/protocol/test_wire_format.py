"""Taking raw tensors out of a message's bytes says the same as protobuf, or nothing."""

from __future__ import annotations

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from parnet_deploy.serve.protocol.messages import ModelInferRequest
from parnet_deploy.serve.protocol.wire_format import take_raw_inputs

BLOBS = st.lists(st.binary(max_size=300), max_size=5)


def request(names: list[str], raws: list[bytes], text: str = "") -> bytes:
    message = ModelInferRequest(model_name=text, id=text)
    message.parameters["n"].int64_param = 3
    for name in names:
        message.inputs.add(name=name, datatype="FP32", shape=[1, 3, 300])
    message.raw_input_contents.extend(raws)
    content: bytes = message.SerializeToString()
    return content


def same(content: bytes) -> bool:
    """Whether the bytes were split; then what came of it is what protobuf says."""
    taken = take_raw_inputs(content)
    if taken is None:
        return False
    rest, raws = taken
    try:
        expected = ModelInferRequest.FromString(content)
    except DecodeError:
        with pytest.raises(DecodeError):
            ModelInferRequest.FromString(rest)
        return True
    found = ModelInferRequest.FromString(rest)
    assert not found.raw_input_contents
    found.raw_input_contents.extend(map(bytes, raws))
    assert found == expected
    return True


@given(st.lists(st.text(max_size=20), max_size=4), BLOBS, st.text(max_size=200))
def test_a_request_is_split(names: list[str], raws: list[bytes], text: str) -> None:
    assert same(request(names, raws, text))


@given(st.binary(max_size=60))
def test_any_bytes(content: bytes) -> None:
    same(content)


@given(BLOBS, st.data())
def test_a_damaged_request(raws: list[bytes], data: st.DataObject) -> None:
    content = bytearray(request(["a"], raws))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    same(bytes(content[: data.draw(st.integers(0, len(content)))]))


def test_tensors_are_views_of_the_bytes() -> None:
    content = request(["a"], [b"x" * 1000])
    taken = take_raw_inputs(content)
    assert taken is not None
    assert taken[1][0].obj is content
    assert len(taken[0]) < 100


def test_raw_tensors_may_stand_anywhere() -> None:
    raw = ModelInferRequest(raw_input_contents=[b"abc"]).SerializeToString()
    content = raw + request(["a", "b"], [b"d"]) + raw
    assert same(content)
    taken = take_raw_inputs(content)
    assert taken is not None
    assert [bytes(each) for each in taken[1]] == [b"abc", b"d", b"abc"]


@pytest.mark.parametrize(
    "content",
    [
        b"\x3a",  # no length
        b"\x3a\x05abc",  # longer than the message
        b"\x3a\xff\xff\xff\xff\xff\xff\x01",  # a length beyond any message
        b"\x38\x05",  # a number where bytes belong
        b"\x02\x00",  # field 0
        b"\x3a\x00" * 257,  # too many
    ],
)
def test_what_is_left_to_protobuf(content: bytes) -> None:
    assert take_raw_inputs(content) is None
