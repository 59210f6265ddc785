"""Raw tensors: every datatype there and back, and sizes held against what is there."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parnet_deploy.serve.protocol.refusal import RefusedError
from parnet_deploy.serve.protocol.tensors import (
    MAX_STRINGS,
    check_datatype,
    check_shape,
    elements_from_raw,
    raw_from_elements,
)
from tests.serve.protocol.protocol_toys import Tensor, check_refusal, image, numbers, strings


@given(st.one_of(numbers(), strings()))
def test_raw_there_and_back(tensor: Tensor) -> None:
    found = elements_from_raw("x", tensor.datatype, tensor.shape, tensor.raw)
    assert tensor.holds(found)
    assert raw_from_elements(tensor.datatype, found) == tensor.raw


def test_a_numeric_tensor_is_a_read_only_view_of_an_unaligned_body() -> None:
    tensor = image()
    for body in (b"{" + tensor.raw, bytearray(b"{" + tensor.raw)):
        found = elements_from_raw("x", "FP32", tensor.shape, memoryview(body)[1:])
        assert np.shares_memory(found, np.frombuffer(body, np.uint8))
        assert not found.flags.writeable
        assert not found.flags.aligned


def test_strings_are_copies() -> None:
    body = bytearray(struct.pack("<I", 2) + b"ab")
    found = elements_from_raw("x", "BYTES", (1,), memoryview(body))
    body[4:] = b"cd"
    assert found == [b"ab"]


def test_an_answer_in_another_layout_is_sent_row_by_row() -> None:
    data = image(3, 4).data
    assert raw_from_elements("FP32", data.T) == np.ascontiguousarray(data.T).tobytes()
    assert raw_from_elements("FP32", data.astype(">f4")) == data.tobytes()


@given(numbers(), st.integers(-8, 8).filter(bool))
def test_a_byte_more_or_less_is_refused(tensor: Tensor, change: int) -> None:
    raw = tensor.raw + bytes(change) if change > 0 else tensor.raw[:change]
    if len(raw) == len(tensor.raw):
        return
    with pytest.raises(RefusedError, match=f"got {len(raw)} bytes, expected {len(tensor.raw)} "):
        elements_from_raw("x", tensor.datatype, tensor.shape, raw)


@given(strings(), st.data())
def test_strings_cut_anywhere_are_refused(tensor: Tensor, data: st.DataObject) -> None:
    raw = tensor.raw
    wrong = data.draw(
        st.one_of(
            st.integers(0, max(len(raw) - 1, 0)).map(lambda size: raw[:size]),
            st.binary(min_size=1).map(lambda more: raw + more),
        )
    )
    if wrong == raw:
        return
    with pytest.raises(RefusedError) as caught:
        elements_from_raw("x", "BYTES", tensor.shape, wrong)
    check_refusal(caught.value)


@pytest.mark.parametrize(
    ("raw", "shape", "part"),
    [
        (b"", (1,), "got 0 elements, expected 1 of shape [1]"),
        (struct.pack("<I", 5) + b"abc", (1,), "got 3 bytes, expected 5 bytes in element 0"),
        (struct.pack("<I", 2**32 - 1), (1,), "got 0 bytes, expected 4294967295 bytes in element 0"),
        (struct.pack("<I", 0) + b"x", (1,), "got 1 bytes after the last element, expected none"),
        (b"\x00\x00\x00", (1,), "got 0 elements, expected 1"),
        (b"x", (0,), "got 1 bytes after the last element, expected none"),
    ],
)
def test_lengths_that_lie(raw: bytes, shape: tuple[int, ...], part: str) -> None:
    with pytest.raises(RefusedError) as caught:
        elements_from_raw("input 'x'", "BYTES", shape, raw)
    assert part in str(caught.value)


def test_more_strings_than_are_taken_are_refused_before_they_are_read() -> None:
    raw = bytes(4 * (MAX_STRINGS + 1))
    with pytest.raises(RefusedError, match="at most 16384 strings") as caught:
        elements_from_raw("x", "BYTES", (MAX_STRINGS + 1,), raw)
    assert caught.value.kind == "too-large"
    assert len(elements_from_raw("x", "BYTES", (MAX_STRINGS,), raw[4:])) == MAX_STRINGS


def test_a_bool_is_0_or_1() -> None:
    assert elements_from_raw("x", "BOOL", (2,), b"\x00\x01").tolist() == [False, True]
    with pytest.raises(RefusedError, match="byte above 1"):
        elements_from_raw("x", "BOOL", (2,), b"\x00\x02")


@pytest.mark.parametrize("datatype", ["BF16", "FP8", "fp32", "STRING", "", None, 5, ["FP32"], {}])
def test_unknown_datatypes(datatype: object) -> None:
    with pytest.raises(RefusedError) as caught:
        check_datatype("x", datatype)
    assert "expected one of BOOL, UINT8, " in str(caught.value)
    check_refusal(caught.value)


@pytest.mark.parametrize(
    "shape", [[], [0], [0, 2**31 - 1], [1, 3, 224, 224], [2**31 - 1], [1] * 16]
)
def test_shapes_that_can_be(shape: list[int]) -> None:
    assert check_shape("x", shape) == tuple(shape)


@pytest.mark.parametrize(
    ("shape", "part"),
    [
        ([-1, 3], "got -1, expected whole numbers from 0"),
        ([1.0], "got 1.0, expected whole numbers"),
        ([True], "got true, expected whole numbers"),
        (["1"], "got '1', expected whole numbers"),
        ([None], "got null, expected whole numbers"),
        ([[1]], "got a list of 1, expected whole numbers"),
        ([2**31], "got 2147483648, expected whole numbers"),
        ([2**64], "expected whole numbers"),
        ([2**30, 2**30], "got [1073741824,1073741824], expected at most 1099511627776 elements"),
        ([0, 2**30, 2**30], "expected at most 1099511627776 elements"),
        ([1] * 17, "got 17 dimensions, expected at most 16"),
        ("123", "got '123', expected a list of sizes"),
        (3, "got 3, expected a list of sizes"),
        (None, "got null, expected a list of sizes"),
        ({"a": 1}, "got an object of 1 keys, expected a list of sizes"),
    ],
)
def test_shapes_that_cannot_be(shape: object, part: str) -> None:
    with pytest.raises(RefusedError) as caught:
        check_shape("input 'x'", shape)
    assert part in str(caught.value)
    check_refusal(caught.value)


@given(st.lists(st.integers(0, 2**31), max_size=16))
def test_no_accepted_shape_is_too_large_for_numpy(shape: list[int]) -> None:
    """The largest element count that is let through must not overflow anything: 0 elements fit."""
    try:
        found = check_shape("x", [*shape[:15], 0])
    except RefusedError:
        return
    assert elements_from_raw("x", "FP64", found, b"").shape == found
