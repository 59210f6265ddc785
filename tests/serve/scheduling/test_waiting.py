"""The order of those that wait."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from parnet_deploy.serve.scheduling.waiting import WaitingQueue
from tests.serve.scheduling.scheduling_toys import ticket

SIZES = [(2, 3), (4, 4)]
STEPS = st.lists(
    st.one_of(
        st.tuples(st.integers(1, 3), st.sampled_from(SIZES), st.integers(1, 3)),  # level, size, n
        st.integers(0, 30),  # remove
    ),
    max_size=60,
)


@given(STEPS)
def test_it_is_a_list_sorted_by_level_and_arrival(steps):
    queue, expected, gone = WaitingQueue(), [], ticket()
    assert not queue.remove(gone)
    for step in steps:
        if isinstance(step, tuple):
            level, size, n = step
            new = ticket(size=size, n=n, level=level)
            queue.put(new)
            expected.append(new)
            expected.sort(key=lambda one: one.level)  # stable: arrival stays
        elif expected:
            gone = expected.pop(step % len(expected))
            assert queue.remove(gone)
            assert not queue.remove(gone)
        assert list(queue) == expected
        assert (len(queue), bool(queue)) == (len(expected), bool(expected))
        assert queue.images == sum(one.count for one in expected)
        for size in SIZES:
            assert queue.images_of(size) == sum(t.count for t in expected if t.size == size)
        for level in range(5):
            ahead = Counter()
            for one in expected:
                ahead[one.size] += one.count * (one.level <= level)
            assert queue.images_ahead(level) == +ahead
        if expected:
            assert queue.first() is expected[0]
