"""Measuring: order of the arms, what is kept, and ratios that pair what ran together."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parnet_deploy import measure
from parnet_deploy.measure import Latency, alternate, compare_latency

Samples = st.lists(st.floats(0.01, 100), min_size=1, max_size=30)


def latency(*samples_ms: float) -> Latency:
    return Latency(name="x", samples_ms=samples_ms, first_ms=0.0)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """A clock that stands still unless it is told to go on, by so many milliseconds."""
    now = [0]

    def advance(milliseconds: float) -> None:
        now[0] += round(milliseconds * 1e6)

    monkeypatch.setattr(measure.time, "perf_counter_ns", lambda: now[0])
    return advance


def test_order_is_reversed_from_round_to_round() -> None:
    calls: list[str] = []
    arms = {name: (lambda name=name: calls.append(name)) for name in "abc"}
    alternate(arms, rounds=4, warm_up=0)
    assert "".join(calls) == "abc" + "abc" + "cba" + "abc" + "cba"


def test_the_first_call_and_the_warm_up_are_not_samples(clock: Callable[[float], None]) -> None:
    durations = {"a": itertools.chain([100, 50, 50], itertools.count(1)), "b": itertools.repeat(2)}
    done: list[int] = []
    found = alternate(
        {name: (lambda name=name: clock(next(durations[name]))) for name in durations},
        rounds=3,
        warm_up=2,
        on_round=done.append,
    )
    assert found["a"].first_ms == 100
    assert found["a"].samples_ms == (1, 2, 3)
    assert found["b"].samples_ms == (2, 2, 2)
    assert done == [1, 2, 3]
    assert list(found) == ["a", "b"]


def test_an_arm_that_fails_stops_the_measurement() -> None:
    def fail() -> None:
        raise ArithmeticError

    with pytest.raises(ArithmeticError):
        alternate({"good": lambda: None, "bad": fail}, rounds=2)


@given(samples=Samples)
def test_quantiles_are_monotone_and_within_the_samples(samples: list[float]) -> None:
    found = latency(*samples)
    values = [found.quantile_ms(q) for q in (0, 0.5, 0.9, 0.99, 1)]
    assert values == sorted(values)
    assert (values[0], values[-1]) == (min(samples), max(samples))
    assert found.median_ms == pytest.approx(float(np.median(samples)))


@given(samples=Samples)
def test_json_keeps_every_raw_sample(samples: list[float]) -> None:
    data = json.loads(json.dumps(latency(*samples).to_json()))
    assert data["samples_ms"] == samples
    assert data["samples"] == len(samples)
    assert data["p50_ms"] <= data["p90_ms"] <= data["p99_ms"]


@given(samples=Samples, factor=st.floats(0.1, 10))
def test_ratio_of_a_multiple_is_the_factor(samples: list[float], factor: float) -> None:
    arm = latency(*(factor * sample for sample in samples))
    found = compare_latency(arm, latency(*samples))
    for value in (found.median, found.low, found.high):
        assert value == pytest.approx(factor)


def test_ratio_pairs_the_samples_of_a_round() -> None:
    """The machine became ten times slower halfway: the arms' ratio did not."""
    base = [1.0] * 10 + [10.0] * 10
    found = compare_latency(latency(*(2 * b for b in base)), latency(*base))
    assert (found.low, found.median, found.high) == (2, 2, 2)


@given(pairs=st.lists(st.tuples(st.floats(0.1, 10), st.floats(0.1, 10)), min_size=2, max_size=20))
def test_interval_is_ordered_and_repeatable(pairs: list[tuple[float, float]]) -> None:
    arm, base = (latency(*side) for side in zip(*pairs, strict=True))
    found = compare_latency(arm, base)
    ratios = [a / b for a, b in pairs]
    slack = 1e-9
    assert min(ratios) <= found.low + slack
    assert found.low <= found.median + slack
    assert found.median <= found.high + slack
    assert found.high <= max(ratios) + slack
    assert compare_latency(arm, base) == found
    assert set(found.to_json()) == {"median", "low", "high"}
