"""Noise in words: each kind is found where it is, and only there."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from parnet_deploy.bench.noise import noise, two_speeds

QUIET = {
    "load_average": [0.1, 0.0, 0.0],
    "cores_usable": 2,
    "affinity": [0, 1],
    "governor": "performance",
    "mhz": 2300.0,
    "gpu_states": [],
    "counters": {
        "at_s": 100.0,
        "busy_s": 50.0,
        "own_s": 10.0,
        "steal_s": 1.0,
        "throttled_periods": 3,
        "throttled_s": 0.5,
    },
}
STEADY = list(np.random.default_rng(0).normal(10, 0.1, 200))


def later(**growth: float | None) -> dict[str, Any]:
    """The quiet machine ten seconds later, of which we used fifteen core-seconds."""
    grown = {"at_s": 10.0, "busy_s": 15.0, "own_s": 15.0, **growth}
    counters = {
        name: None if grown.get(name, 0) is None else value + grown.get(name, 0)
        for name, value in QUIET["counters"].items()
    }
    return {**QUIET, "counters": counters}


def names(before=QUIET, after=None, samples=STEADY) -> list[str]:
    return [one["name"] for one in noise(before, after or later(), samples)]


def test_a_quiet_run_has_none() -> None:
    assert names() == []


@pytest.mark.parametrize(
    ("growth", "name", "text"),
    [
        ({"busy_s": 22.0}, "foreign", "other programs used 0.7 cores meanwhile"),
        ({"steal_s": 1.0}, "steal", "gave 5% of our cores' time"),
        ({"throttled_periods": 4, "throttled_s": 0.2}, "throttled", "4 times, for 0.2 s"),
    ],
)
def test_what_happened_meanwhile(growth, name, text) -> None:
    (found,) = noise(QUIET, later(**growth), STEADY)
    assert found["name"] == name
    assert text in found["detail"]


def test_what_the_system_does_not_tell_is_no_noise() -> None:
    unknown = later(busy_s=None, own_s=None, steal_s=None, throttled_periods=None, throttled_s=None)
    assert names(after=unknown) == []


def test_others_may_use_cores_that_we_do_not() -> None:
    wide = {**QUIET, "affinity": list(range(8))}
    assert names(before=wide, after=later(busy_s=15.0 + 50.0)) == []
    assert names(before=wide, after=later(busy_s=15.0 + 65.0)) == ["foreign"]


def test_the_machine_before() -> None:
    assert names(before={**QUIET, "load_average": [5.0, 1, 1]}) == ["load"]
    assert names(before={**QUIET, "load_average": None}) == []
    assert names(before={**QUIET, "governor": "powersave"}) == ["governor"]
    assert names(before={**QUIET, "governor": None}) == []


def test_a_slowed_gpu() -> None:
    states = [{"throttled": []}, {"throttled": None}, {"throttled": ["power cap"]}]
    (found,) = noise(QUIET, {**later(), "gpu_states": states}, STEADY)
    assert found == {"name": "gpu", "detail": "GPU 2 is slowed down: power cap"}


def test_the_shape_of_the_samples() -> None:
    assert names(samples=STEADY[:10]) == ["few"]
    assert names(samples=[*STEADY[:150], *[30.0] * 50]).count("spread") == 1
    slower = [value * (1 + i / 1000) for i, value in enumerate(STEADY)]
    assert names(samples=slower) == ["drift"]


def test_two_speeds_are_told_from_one_with_a_tail() -> None:
    generator = np.random.default_rng(0)
    fast, slow = generator.normal(10, 0.2, 300), generator.normal(15, 0.3, 200)
    mixed = generator.permutation(np.concatenate([fast, slow]))
    assert two_speeds(mixed) == pytest.approx((10, 15), rel=0.05)
    assert "bimodal" in names(samples=list(mixed))
    assert two_speeds(fast) is None
    assert two_speeds(10 * np.exp(0.3 * generator.exponential(1, 500))) is None
    assert two_speeds(np.full(100, 10.0)) is None
