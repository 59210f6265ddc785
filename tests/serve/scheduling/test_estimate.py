"""What is known of the engine's time, and what is made of it where nothing is known."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parnet_deploy.serve.scheduling.estimate import KINDS, RECENT, Estimate

SIZE = (32, 32)


def measured(*runs: tuple[tuple[int, int], int, float]) -> Estimate:
    estimate = Estimate()
    for at, (size, count, run_s) in enumerate(runs):
        estimate.add(size, count, run_s, float(at))
    return estimate


def test_nothing_measured_is_no_time():
    assert Estimate().run_s(SIZE, 3) == 0
    assert Estimate().drain_s(SIZE, 100, 8) == 0


@given(st.floats(0.001, 1), st.floats(10, 100), st.integers(0, RECENT // 2))
def test_a_few_hiccups_change_nothing(usual, hiccup, hiccups):
    runs = [(SIZE, 1, usual)] * (RECENT - hiccups) + [(SIZE, 1, hiccup)] * hiccups
    assert measured(*runs).run_s(SIZE, 1) == usual


def test_what_lasts_is_learnt_and_what_is_over_forgotten():
    estimate = measured(*[(SIZE, 1, 1.0)] * 20, *[(SIZE, 1, 3.0)] * (RECENT // 2 + 1))
    assert estimate.run_s(SIZE, 1) == 3.0


@pytest.mark.parametrize(
    ("known", "count", "expected"),
    [
        ({2: 1.0}, 6, 3.0),  # by pixels from a smaller batch
        ({4: 1.0}, 1, 1.0),  # at most as long as a larger one
        ({1: 1.0, 8: 2.0}, 4, 2.0),  # the scaled smaller one would be more than the larger one
        ({1: 1.0, 2: 1.5, 8: 9.0}, 4, 3.0),  # from the nearest
    ],
)
def test_an_unknown_batch_is_guessed_from_its_neighbours(known, count, expected):
    estimate = measured(*[(SIZE, n, time_s) for n, time_s in known.items()])
    assert estimate.run_s(SIZE, count) == pytest.approx(expected)


def test_an_unknown_size_is_guessed_by_its_pixels():
    assert measured((SIZE, 2, 1.0)).run_s((64, 64), 1) == pytest.approx(2.0)


def test_the_rest_of_a_queue_runs_in_full_batches():
    estimate = measured((SIZE, 8, 2.0), (SIZE, 3, 1.0))
    assert estimate.drain_s(SIZE, 19, 8) == pytest.approx(2 * 2.0 + 1.0)


def test_kinds_are_bounded_and_the_oldest_goes():
    estimate = measured(*[((32 * n, 32), 1, float(n)) for n in range(1, KINDS + 2)])
    assert len(estimate._median) == KINDS
    assert ((32, 32), 1) not in estimate._median
    assert estimate.run_s((64, 32), 1) == 2.0
