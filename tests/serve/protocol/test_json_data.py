"""A tensor's data in JSON: nested and flat the same, and nothing bent to fit."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parnet_deploy.serve.protocol.json_data import elements_from_json
from parnet_deploy.serve.protocol.refusal import RefusedError
from tests.serve.protocol.protocol_toys import Tensor, check_refusal, json_values, numbers, strings


@given(st.one_of(numbers(finite=True), strings(utf8=True)), st.booleans())
def test_nested_and_flat_give_the_tensor(tensor: Tensor, nested: bool) -> None:
    data = json.loads(json.dumps(json_values(tensor, nested=nested)))
    assert tensor.holds(elements_from_json("x", tensor.datatype, tensor.shape, data))


def refused(datatype: str, shape: tuple[int, ...], data: Any, **options: Any) -> str:
    with pytest.raises(RefusedError) as caught:
        elements_from_json("input 'x'", datatype, shape, data, **options)
    check_refusal(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("shape", "data", "part"),
    [
        ((2, 2), [1, 2, 3], "got 3 elements, expected 4 for shape [2,2]"),
        ((2, 2), [1, 2, 3, 4, 5], "got 5 elements, expected 4"),
        ((2, 2), [[1, 2]], "got a list of 1, expected 2 lists for shape [2,2]"),
        ((2, 2), [[1, 2], [3]], "got others at depth 2, expected lists of 2"),
        ((2, 2), [[1, 2], 3], "got others at depth 2, expected lists of 2"),
        ((2, 2), [[1, 2], [3, [4]]], "got a list of 1, expected numbers for FP32"),
        ((2,), [[1], [2]], "got a list of 1, expected numbers for FP32"),
        ((1, 2, 2), [[1, 2], [3, 4]], "got a list of 2, expected 1 lists for shape [1,2,2]"),
        ((0, 3), [[]], "got a list of 1, expected 0 lists"),
        ((), [[5]], "got a list of 1, expected numbers"),
        ((1,), 5, "got 5, expected a list"),
        ((1,), "5", "got '5', expected a list"),
        ((1,), {"0": 5}, "got an object of 1 keys, expected a list"),
        ((1,), ["5"], "got '5', expected numbers for FP32"),
        ((2,), [1, None], "got null, expected numbers for FP32"),
        ((2,), [1, True], "got true, expected numbers for FP32"),
        ((1,), [{}], "got an object of 0 keys, expected numbers for FP32"),
        ((2,), [0, -1e39], "got -1e+39, expected at most 3.4e+38 for FP32"),
    ],
)
def test_what_is_not_a_float_tensor(shape: tuple[int, ...], data: Any, part: str) -> None:
    assert part in refused("FP32", shape, data)


@pytest.mark.parametrize(
    ("datatype", "value", "part"),
    [
        ("UINT8", 256, "got 256, expected 0 to 255 for UINT8"),
        ("UINT8", -1, "got -1, expected 0 to 255 for UINT8"),
        ("INT8", 128, "got 128, expected -128 to 127 for INT8"),
        ("INT8", -129, "got -129, expected -128 to 127 for INT8"),
        ("INT64", 2**63, "expected -9223372036854775808 to 9223372036854775807 for INT64"),
        ("UINT64", -1, "got -1, expected 0 to 18446744073709551615 for UINT64"),
        ("UINT64", 1.8446744073709552e19, "expected whole numbers for UINT64"),
        ("INT32", 1.0, "got 1.0, expected whole numbers for INT32"),
        ("INT32", True, "got true, expected whole numbers for INT32"),
        ("BOOL", 1, "got 1, expected true or false for BOOL"),
        ("FP16", 65520, "got 65520, expected at most 6.55e+04 for FP16"),
        ("BYTES", 1, "got 1, expected texts for BYTES"),
        ("BYTES", ["a"], "expected texts for BYTES"),
    ],
)
def test_what_does_not_fit_its_datatype(datatype: str, value: Any, part: str) -> None:
    assert part in refused(datatype, (1,), [value])


def test_the_limits_themselves_fit() -> None:
    for datatype, value in [("INT8", -128), ("UINT64", 2**64 - 1), ("INT64", -(2**63))]:
        assert elements_from_json("x", datatype, (1,), [value]).tolist() == [value]
    largest = float(np.finfo(np.float32).max)
    assert elements_from_json("x", "FP32", (1,), [largest]).tolist() == [largest]


@given(st.lists(st.binary(), max_size=4))
def test_base64_where_the_client_says_so(texts: list[bytes]) -> None:
    data = [base64.b64encode(text).decode() for text in texts]
    assert elements_from_json("x", "BYTES", (len(texts),), data, base64_texts=True) == texts
    plain = [text.encode() for text in data]
    assert elements_from_json("x", "BYTES", (len(texts),), data) == plain


@pytest.mark.parametrize("text", ["*", "abc", "YWJj\n", "ü", "YWJj YWJj"])
def test_what_is_not_base64(text: str) -> None:
    assert "expected base64" in refused("BYTES", (1,), [text], base64_texts=True)
