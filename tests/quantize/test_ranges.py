from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parnet_deploy.errors import SpecError
from parnet_deploy.quantize.ranges import BINS, METHODS, Histogram, choose_range


def count(values: np.ndarray) -> Histogram:
    values = values.astype(np.float32)
    found = Histogram.empty(float(values.min()), float(values.max()))
    found.add(values)
    return found


def normal(size: int = 20000, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(size)


def error(values: np.ndarray, threshold: float) -> float:
    step = threshold / 127
    return float(np.mean((values - np.clip(np.round(values / step), -127, 127) * step) ** 2))


def test_a_histogram_has_2048_bins_and_loses_no_value() -> None:
    values = normal()
    found = count(values)
    assert len(found.counts) == BINS == 2048
    assert found.counts.sum() == len(values)
    expected, _ = np.histogram(values.astype(np.float32), BINS, (found.low, found.high))
    assert np.abs(found.counts - expected).sum() < 0.01 * len(values)  # borders of bins


def test_values_outside_land_in_the_last_bin_of_their_side() -> None:
    found = Histogram.empty(-1.0, 1.0)
    found.add(np.array([-5, 0, 7, 9], np.float32))
    assert found.counts[0] == 1
    assert found.counts[-1] == 2


def test_minmax_keeps_everything_that_was_seen() -> None:
    found = count(normal())
    assert choose_range(found, "minmax") == (found.low, found.high)


@given(
    st.lists(st.floats(-1e4, 1e4, width=32), min_size=2, max_size=50),
    st.sampled_from(METHODS),
)
def test_every_range_holds_zero_and_never_leaves_what_was_seen(values, method) -> None:
    found = count(np.array(values))
    low, high = choose_range(found, method)
    assert low <= 0 <= high
    assert low >= min(found.low, 0)
    assert high <= max(found.high, 0)


def test_percentile_cuts_the_share_that_was_asked_for() -> None:
    values = normal(100_000)
    low, high = choose_range(count(values), "percentile", 99.0)
    assert low == pytest.approx(np.quantile(values, 0.01), abs=0.02)
    assert high == pytest.approx(np.quantile(values, 0.99), abs=0.02)


@pytest.mark.parametrize("method", ["entropy", "percentile"])
def test_one_outlier_does_not_stretch_the_range(method) -> None:
    values = np.append(normal(100_000), 300.0)
    _, high = choose_range(count(values), method)
    assert high < 60
    assert choose_range(count(values), "minmax")[1] == 300


def test_mse_is_as_good_as_trying_every_threshold() -> None:
    values = np.append(normal(50_000), [20.0, -18.0])
    low, high = choose_range(count(values), "mse")
    best = min(error(values, t) for t in np.linspace(2, 20, 200))
    assert error(values, max(-low, high)) <= 1.05 * best
    assert error(values, max(-low, high)) < 0.9 * error(values, 20.0)


@pytest.mark.parametrize("method", ["entropy", "mse"])
def test_large_values_all_on_one_side_are_not_cut_off(method) -> None:
    values = 0.9 + 0.02 * normal()  # a gate that is nearly open
    low, high = choose_range(count(values), method)
    assert np.mean((values < low) | (values > high)) <= 0.011


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("value", [0.0, 3.5, -2.0])
def test_a_constant_tensor_keeps_its_value(method, value) -> None:
    low, high = choose_range(count(np.full(10, value)), method)
    assert low <= value <= high


@pytest.mark.parametrize(
    ("method", "percentile", "text"),
    [("maximum", 99.9, "method: got 'maximum'"), ("percentile", 20, "percentile: got 20")],
)
def test_impossible_choices(method, percentile, text) -> None:
    with pytest.raises(SpecError, match=text):
        choose_range(count(normal()), method, percentile)
