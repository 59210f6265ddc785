"""Figures and their intervals; what intervals promise is tried on series whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parnet_deploy.bench.result import QUANTILE_NAMES
from parnet_deploy.bench.statistics import (
    QUANTILES,
    block_length,
    interval,
    quantiles,
    ratio,
    samples_needed,
)

Samples = st.lists(st.floats(0.01, 100), min_size=1, max_size=60)


def series(generator: np.random.Generator, count: int, memory: float) -> list[float]:
    """A series whose median is 1 and in which each sample remembers the one before."""
    noise = generator.standard_normal(count + 50)
    found = [0.0]
    for step in noise:
        found.append(memory * found[-1] + step)
    return list(np.exp(0.1 * np.array(found[-count:])))


def coverage(memory: float, block: int | None, tries: int = 100) -> float:
    """How often the interval of the median holds the truth."""
    generator = np.random.default_rng(1)
    found = [interval(series(generator, 150, memory), block=block) for _ in range(tries)]
    return sum(one["low"] <= 1 <= one["high"] for one in found) / tries


@given(samples=Samples)
def test_quantiles_are_those_of_the_raw_samples(samples: list[float]) -> None:
    found = quantiles(samples)
    assert tuple(found) == QUANTILE_NAMES
    for name, one in found.items():
        assert (one is not None) == (len(samples) >= samples_needed(name))
        if one is not None:
            assert one["value"] == pytest.approx(float(np.quantile(samples, QUANTILES[name])))
            assert min(samples) <= one["low"] <= one["value"] <= one["high"] <= max(samples)


def test_a_quantile_needs_two_samples_beyond_it() -> None:
    needed = {name: samples_needed(name) for name in QUANTILES}
    assert needed == {"p50": 1, "p90": 20, "p99": 200, "p99.9": 2000}
    assert quantiles([1.0] * 199)["p99"] is None
    assert quantiles([1.0] * 200)["p99"] == {"value": 1.0, "low": 1.0, "high": 1.0}


def test_outliers_are_not_clipped() -> None:
    found = quantiles([1.0] * 195 + [50.0] * 5)["p99"]
    assert found is not None
    assert found["value"] == found["high"] == 50.0


@given(samples=Samples, factor=st.floats(0.1, 10))
def test_the_ratio_of_a_multiple_is_the_factor(samples: list[float], factor: float) -> None:
    found = ratio([factor * sample for sample in samples], samples)
    assert list(found.values()) == pytest.approx([factor] * 3)


def test_what_slows_both_arms_cancels_out_of_the_ratio() -> None:
    generator = np.random.default_rng(0)
    machine = np.array(series(generator, 200, 0.9))
    arm, ours = (machine * generator.normal(value, 0.01, 200) for value in (3.0, 2.0))
    paired, alone = ratio(list(arm), list(ours)), interval(list(arm))
    assert paired["low"] < 1.5 < paired["high"]
    width = (paired["high"] - paired["low"]) / paired["value"]
    assert width < 0.5 * (alone["high"] - alone["low"]) / alone["value"]


def test_an_interval_of_any_statistic() -> None:
    found = interval([1.0, 2.0, 3.0, 10.0], lambda values: values.mean(axis=-1))
    assert found["value"] == 4.0
    assert 1.0 <= found["low"] < 4.0 < found["high"] <= 10.0


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    assert coverage(0.0, None) >= 0.88
    assert coverage(0.6, None) >= 0.85
    assert coverage(0.6, 1) < 0.82  # as if samples did not resemble each other


def test_blocks_grow_with_memory() -> None:
    generator = np.random.default_rng(0)
    lengths = [block_length(series(generator, 1000, memory)) for memory in (0.0, 0.6, 0.95)]
    assert lengths == sorted(lengths)
    assert lengths[0] == 10  # the cube root
    assert lengths[2] > 3 * lengths[0]


@given(samples=Samples)
def test_blocks_are_neither_empty_nor_the_whole(samples: list[float]) -> None:
    assert 1 <= block_length(samples) <= max(1, len(samples) // 4)


def test_the_same_samples_give_the_same_interval() -> None:
    samples = series(np.random.default_rng(0), 100, 0.5)
    assert interval(samples) == interval(samples)


def test_many_samples_are_drawn_in_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    samples = series(np.random.default_rng(0), 50, 0.5)
    whole = interval(samples)
    monkeypatch.setattr("parnet_deploy.bench.statistics._AT_ONCE", 500)
    portions = interval(samples)
    assert portions["value"] == whole["value"]
    assert portions["low"] == pytest.approx(whole["low"], rel=0.02)
    assert portions["high"] == pytest.approx(whole["high"], rel=0.02)
