"""Parity: the tolerance that it names is the one that passes, and NaN never passes."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from parnet_deploy.compare import Parity, compare
from parnet_deploy.errors import CheckFailedError

Arrays = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=1, max_dims=4, max_side=4),
    elements=st.floats(-1e6, 1e6, width=32),
)


@given(reference=Arrays, data=st.data())
def test_the_error_is_the_smallest_tolerance_that_passes(
    reference: NDArray[np.float32], data: st.DataObject
) -> None:
    noise = data.draw(hnp.arrays(np.float32, reference.shape, elements=st.floats(-1, 1, width=32)))
    got = reference + noise
    error = compare(got, reference, tolerance=0.0).error
    assert compare(got, reference, tolerance=error)
    assert compare(got, reference, tolerance=2 * error + 1e-30)
    if error > 0:
        assert not compare(got, reference, tolerance=np.nextafter(error, 0))
        assert not compare(got, reference, tolerance=0.0)


@given(reference=Arrays)
def test_equal_is_equal(reference: NDArray[np.float32]) -> None:
    found = compare(reference.copy(), reference, tolerance=0.0)
    assert found.require() is found
    assert (found.error, found.max_abs) == (0.0, 0.0)


@given(reference=Arrays, scale=st.sampled_from([1e-3, 1e3]))
def test_the_error_does_not_depend_on_the_scale(
    reference: NDArray[np.float32], scale: float
) -> None:
    double = reference.astype(np.float64)
    got = double + 0.01
    if np.abs(double).max() > 1e-3:
        first = compare(got, double, tolerance=1.0).error
        second = compare(got * scale, double * scale, tolerance=1.0).error
        assert second == pytest.approx(first, rel=1e-6)


def test_where_and_how_far() -> None:
    reference = np.array([[1.0, -4.0], [2.0, 3.0]])
    got = reference + np.array([[0.0, 0.1], [-0.2, 0.0]])
    found = compare(got, reference, tolerance=0.01, what="logits")
    assert found.worst == (1, 0)
    assert found.max_abs == pytest.approx(0.2)
    assert found.error == pytest.approx(0.05)
    text = "logits: error 5.00e-02 of the largest value, tolerance 1e-02 (worst at (1, 0), 2.00e-01"
    with pytest.raises(CheckFailedError) as caught:
        found.require()
    assert str(caught.value) == f"parity: {text} apart)."


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", ["got", "reference", "both"])
def test_what_is_not_finite_fails(value: float, where: str) -> None:
    good, bad = np.array([[1.0, 2.0]]), np.array([[1.0, value]])
    pair = {"got": (bad, good), "reference": (good, bad), "both": (bad, bad)}[where]
    found = compare(*pair, tolerance=1e30)
    assert not found
    with pytest.raises(CheckFailedError, match=r"^parity: output: NaN or Inf in the output\.$"):
        found.require()


def test_a_tolerance_that_is_no_number_passes_nothing() -> None:
    assert not compare(np.ones(2), np.ones(2), tolerance=float("nan"))


def test_shapes_must_be_equal() -> None:
    """Also those that numpy would broadcast."""
    with pytest.raises(CheckFailedError, match=r"got shape \(1, 4\), expected \(3, 4\)"):
        compare(np.ones((1, 4)), np.ones((3, 4)), tolerance=1.0)


def test_a_reference_of_zeros_is_compared_absolutely() -> None:
    assert compare(np.full(3, 1e-6), np.zeros(3), tolerance=1e-5)
    assert not compare(np.full(3, 1e-4), np.zeros(3), tolerance=1e-5)


def test_differences_are_taken_in_double_precision() -> None:
    got, reference = np.array([60000], np.float16), np.array([-60000], np.float16)
    assert compare(got, reference, tolerance=3.0).max_abs == pytest.approx(120000, rel=1e-3)


def test_top1_is_of_logits() -> None:
    reference = np.array([[1.0, 2.0], [2.0, 1.0], [0.0, 3.0], [1.0, 0.0]])
    got = reference.copy()
    got[0] = got[0, ::-1]
    assert compare(got, reference, tolerance=1.0).top1_equal == 0.75
    assert compare(np.ones(3), np.ones(3), tolerance=1.0).top1_equal is None


def test_an_empty_answer() -> None:
    found = compare(np.ones((0, 5)), np.ones((0, 5)), tolerance=0.0)
    assert (bool(found), found.worst, found.top1_equal) == (True, (), None)


def test_json_has_the_verdict() -> None:
    data = json.loads(json.dumps(compare(np.ones((1, 2)), np.ones((1, 2)), tolerance=0).to_json()))
    assert data["passed"] is True
    assert set(data) == {*Parity.__dataclass_fields__, "passed"}
