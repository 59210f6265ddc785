from __future__ import annotations

import pytest

from parnet_deploy.builder.planner import pick
from parnet_deploy.measure import Latency


def arms(**samples: tuple[float, ...]) -> dict[str, Latency]:
    return {
        name: Latency(name=name, samples_ms=values, first_ms=1.0)
        for name, values in samples.items()
    }


@pytest.mark.parametrize(("later_ms", "winner"), [(0.99, "a"), (0.5, "b"), (1.5, "a")])
def test_a_complicated_candidate_must_be_clearly_faster(later_ms: float, winner: str) -> None:
    assert pick(arms(a=(1.0,) * 30, b=(later_ms,) * 30)) == winner


def test_a_gain_within_noise_does_not_count() -> None:
    noisy = (0.5, 1.6) * 15 + (0.5,)
    assert sorted(noisy)[15] < 0.98  # the median alone would have won
    assert pick(arms(a=(1.0,) * 31, b=noisy)) == "a"


def test_later_candidates_are_compared_with_the_best_so_far() -> None:
    assert pick(arms(a=(1.0,) * 30, b=(0.5,) * 30, c=(0.6,) * 30)) == "b"
    assert pick(arms(a=(1.0,) * 30, b=(0.5,) * 30, c=(0.3,) * 30)) == "c"
    assert pick(arms(only=(1.0,) * 3)) == "only"
