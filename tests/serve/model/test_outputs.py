"""Logits as values and as classes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parnet_deploy.serve.model.outputs import best_classes, make_output
from parnet_deploy.serve.protocol.refusal import RefusedError
from parnet_deploy.serve.protocol.request import WantedOutput

LOGITS = np.array([[0.5, 2.0, -1.25, 2.0], [3.0, 1.0, 2.0, 0.0]], np.float32)


def test_values_are_the_array_itself():
    output = make_output(WantedOutput(name="logits", binary=True), LOGITS)
    assert output.data is LOGITS
    assert (output.datatype, output.shape, output.binary) == ("FP32", (2, 4), True)


@pytest.mark.parametrize(
    ("count", "labels", "expected"),
    [
        (1, None, [b"2.000000:1", b"3.000000:0"]),
        (2, ("a", "b", "c", "d: e"), [b"2.000000:1:b", b"2.000000:3:d: e"]),
        (9, None, [b"2.000000:1", b"2.000000:3", b"0.500000:0", b"-1.250000:2"]),
    ],
)
def test_classes_are_written_as_the_protocol_has_them(count, labels, expected):
    output = make_output(WantedOutput(name="logits", classification=count), LOGITS, labels)
    assert output.datatype == "BYTES"
    assert output.shape == (2, min(count, 4))
    assert len(output.data) == 2 * min(count, 4)
    assert output.data[: len(expected)] == expected


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_not_ranked(value):
    """As it is not written as JSON: whoever wants it as it is asks for it raw."""
    logits = LOGITS.copy()
    logits[1, 2] = value
    with pytest.raises(RefusedError, match="output 'logits': got NaN or Inf") as caught:
        make_output(WantedOutput(name="logits", classification=1), logits)
    assert caught.value.kind == "invalid"
    assert make_output(WantedOutput(name="logits", binary=True), logits).data is logits


def test_nan_stands_last_and_is_written_as_such():
    values = np.array([np.nan, -np.inf, 1.0, np.inf], np.float32)
    assert best_classes(values, 4) == [b"inf:3", b"1.000000:2", b"-inf:1", b"nan:0"]


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=30), st.integers(1, 40))
def test_the_best_by_value_then_by_index(values, count):
    texts = best_classes(np.array(values, np.float32), count)
    order = sorted(range(len(values)), key=lambda k: (-values[k], k))[:count]
    assert texts == [f"{float(values[k]):f}:{k}".encode() for k in order]
