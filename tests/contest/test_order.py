"""Turns: fair to every arm, and long enough to measure."""

from __future__ import annotations

from collections import Counter
from itertools import chain, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parnet_deploy.contest.order import MAX_BURST, Turn, orders, paced_turn, saturated_turn


@given(names=st.sets(st.text(), min_size=1, max_size=6).map(sorted), rounds=st.integers(0, 20))
def test_every_arm_has_one_turn_in_each_round(names: list[str], rounds: int) -> None:
    found = list(orders(names, rounds))
    assert len(found) == rounds
    assert all(sorted(order) == names for order in found)
    assert found == list(orders(names, rounds))
    if len(names) > 1:
        assert all(a != b for a, b in pairwise(chain(*found)))


@pytest.mark.parametrize("count", [3, 4, 5])
def test_every_arm_follows_every_other_about_equally_often(count: int) -> None:
    names = [chr(97 + i) for i in range(count)]
    follows = Counter(pairwise(chain(*orders(names, 2000))))
    assert len(follows) == count * (count - 1)
    assert max(follows.values()) < 1.25 * min(follows.values())


def test_short_calls_come_in_bursts_whose_first_is_not_timed() -> None:
    assert saturated_turn({"a": 1.0, "b": 40.0}) == Turn(lead=0, calls=1)
    assert saturated_turn({"a": 0.5, "b": 40.0}) == Turn(lead=1, calls=10)
    assert saturated_turn({"a": 0.0}) == Turn(lead=1, calls=MAX_BURST)
    assert saturated_turn({}).calls == 1


def test_paced_calls_take_whole_periods() -> None:
    turn = paced_turn(50.0)
    assert turn.period_s == pytest.approx(0.02)
    assert turn.expected_ms(1.0) == pytest.approx(20 * (turn.lead + turn.calls))
    assert turn.expected_ms(30.0) == pytest.approx(40 * (turn.lead + turn.calls))
    assert Turn(lead=1, calls=3).expected_ms(2.0) == 8
