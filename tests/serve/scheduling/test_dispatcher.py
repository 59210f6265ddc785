"""Every decision, replayed in time that the test makes."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parnet_deploy.serve.protocol.refusal import RefusedError
from parnet_deploy.serve.scheduling.dispatcher import (
    STALE_S,
    WAKE_MOST_S,
    WAKE_SHARE,
    Dispatcher,
    Limits,
)
from parnet_deploy.serve.scheduling.estimate import Estimate
from tests.serve.scheduling.scheduling_toys import dispatcher, ticket

SIZE, OTHER = (2, 3), (4, 4)


def measured(time_s: float, *, at_s: float = 0.0, **limits) -> Dispatcher:
    """A dispatcher that knows how long one image takes."""
    estimate = Estimate()
    estimate.add(SIZE, 1, time_s, at_s)
    return Dispatcher("toy", Limits(**limits), estimate)


class TestOrder:
    def test_an_idle_slot_takes_a_request_at_once(self):
        queue, one = dispatcher(), ticket()
        batch = queue.submit(one, 0.0)
        assert batch is not None
        assert batch.tickets == (one,)
        assert not queue.waiting

    def test_what_waits_runs_together_when_the_slot_is_free(self):
        queue = dispatcher(max_batch=4)
        first = queue.submit(ticket(), 0.0)
        later = [ticket(n) for n in range(6)]
        assert [queue.submit(one, 0.0) for one in later] == [None] * 6
        second = queue.finished(first, 1.0, 1.0)
        assert second.tickets == tuple(later[:4])
        assert queue.finished(second, 2.0, 1.0).tickets == tuple(later[4:])

    def test_a_request_of_several_images_counts_them(self):
        queue = dispatcher(max_batch=4)
        first = queue.submit(ticket(), 0.0)
        three, two, one = ticket(n=3), ticket(n=2), ticket(n=1)
        for each in (three, two, one):
            queue.submit(each, 0.0)
        second = queue.finished(first, 1.0, None)
        assert second.tickets == (three,)  # the two do not fit, and the one must not overtake them
        assert queue.finished(second, 2.0, None).tickets == (two, one)

    def test_the_most_urgent_level_runs_first_and_in_order_of_arrival(self):
        queue = dispatcher()
        batch = queue.submit(ticket(), 0.0)
        low, high, normal, high2 = (ticket(level=level) for level in (9, 1, 5, 1))
        for each in (low, high, normal, high2):
            queue.submit(each, 0.0)
        order = []
        while (batch := queue.finished(batch, 0.0, None)) is not None:
            order += batch.tickets
        assert order == [high, high2, normal, low]

    def test_images_of_different_sizes_never_share_a_batch(self):
        queue = dispatcher(max_batch=4)
        first = queue.submit(ticket(), 0.0)
        small, large, small2 = ticket(), ticket(size=OTHER), ticket()
        for each in (small, large, small2):
            queue.submit(each, 0.0)
        second = queue.finished(first, 0.0, None)
        assert second.tickets == (small, small2)
        assert queue.finished(second, 0.0, None).tickets == (large,)

    def test_nobody_is_made_late_by_a_companion_of_somebody_before(self):
        queue = measured(1.0, max_batch=4)
        first = queue.submit(ticket(), 0.0)
        pixels = 16 / 6  # how much longer OTHER should take
        small, hurried = ticket(), ticket(size=OTHER, deadline_s=1.0 + 1.0 + pixels + 0.5)
        for each in (small, hurried, ticket()):
            queue.submit(each, 0.0)
        second = queue.finished(first, 1.0, 1.0)
        assert second.tickets == (small,)  # with its companion it would take 2 s
        assert queue.finished(second, 2.0, 1.0).tickets == (hurried,)

    def test_a_batch_does_not_grow_beyond_a_members_deadline(self):
        queue = measured(1.0, max_batch=4)
        first = queue.submit(ticket(), 0.0)
        tickets = [ticket(deadline_s=4.5), ticket(), ticket(), ticket()]
        for each in tickets:
            queue.submit(each, 0.0)
        assert queue.finished(first, 1.0, 1.0).tickets == tuple(tickets[:3])

    def test_a_withdrawn_request_leaves_the_queue_at_once(self):
        queue = dispatcher(max_queue=1)
        first, gone, other = queue.submit(ticket(), 0.0), ticket(), ticket()
        queue.submit(gone, 0.0)
        assert queue.withdraw(gone)
        assert not queue.withdraw(gone)
        queue.submit(other, 0.0)  # its place is free
        assert queue.finished(first, 0.0, None).tickets == (other,)


class TestDelay:
    def test_a_batch_waits_to_grow_and_no_longer(self):
        queue = dispatcher(max_batch=3, max_delay_s=0.010)
        one, two = ticket(queued_s=0.0), ticket(queued_s=0.004)
        assert queue.submit(one, 0.0) is None
        assert queue.wake_s == 0.010
        assert queue.submit(two, 0.004) is None
        assert queue.wake_s == 0.010  # counted from the first
        assert queue.poll(0.010).tickets == (one, two)
        assert queue.wake_s == math.inf

    def test_a_full_batch_does_not_wait(self):
        queue = dispatcher(max_batch=2, max_delay_s=10)
        queue.submit(ticket(), 0.0)
        assert queue.submit(ticket(), 0.0).count == 2

    def test_it_waits_less_where_the_deadline_wants_it(self):
        queue = measured(1.0, max_batch=2, max_delay_s=10)
        queue.submit(ticket(deadline_s=3.0), 0.0)
        assert queue.wake_s == pytest.approx(2.0 - WAKE_MOST_S)

    def test_a_companion_in_a_hurry_is_waited_for_no_longer_than_it_can(self):
        queue = measured(1.0, max_batch=3, max_delay_s=10)
        queue.submit(ticket(), 0.0)
        queue.submit(ticket(deadline_s=4.0), 0.0)  # the two of them take 2 s
        assert queue.wake_s == pytest.approx(2.0 - WAKE_MOST_S)

    def test_a_short_deadline_leaves_a_share_of_it_for_the_timer(self):
        queue = dispatcher(max_batch=2, max_delay_s=10)
        queue.submit(ticket(deadline_s=0.008), 0.0)
        assert queue.wake_s == pytest.approx(0.008 * (1 - WAKE_SHARE))

    def test_in_a_hurry_nothing_waits_any_more(self):
        queue, one = dispatcher(max_batch=3, max_delay_s=10), ticket()
        assert queue.submit(one, 0.0) is None
        queue.hurry()
        batch = queue.poll(0.0)
        assert batch.tickets == (one,)
        assert queue.finished(batch, 0.0, None) is None
        assert queue.submit(ticket(), 0.0) is not None

    def test_without_a_delay_nothing_waits(self):
        queue = dispatcher(max_batch=8)
        assert queue.submit(ticket(), 0.0) is not None
        assert queue.wake_s == math.inf


class TestAdmission:
    def refused(self, queue: Dispatcher, one, now=0.0) -> RefusedError:
        before = list(queue.waiting)
        with pytest.raises(RefusedError) as caught:
            queue.submit(one, now)
        assert list(queue.waiting) == before
        return caught.value

    def test_a_full_queue_is_busy_and_says_when_to_come_again(self):
        queue = measured(2.0, max_queue=3)
        queue.submit(ticket(), 0.0)
        for n in (1, 2):
            queue.submit(ticket(n=n), 0.0)
        error = self.refused(queue, ticket(), 0.5)
        assert (error.kind, error.code.http, error.retry_after_s) == ("busy", 503, 2.0)
        full = "the queue is full: 3 of --max-queue 3 images wait, no room for 1 more. Try"
        assert full in str(error)

    def test_a_request_larger_than_the_queue_may_wait_alone(self):
        queue = dispatcher(max_batch=4, max_queue=2)
        queue.submit(ticket(), 0.0)
        queue.submit(ticket(n=4), 0.0)
        assert self.refused(queue, ticket()).kind == "busy"

    def test_no_queue_at_all(self):
        queue = dispatcher(max_queue=0)
        assert queue.submit(ticket(), 0.0) is not None
        assert self.refused(queue, ticket()).kind == "busy"

    def test_a_deadline_that_has_passed_is_late(self):
        assert self.refused(dispatcher(), ticket(deadline_s=1.0), 1.0).kind == "late"

    def test_a_deadline_shorter_than_the_engine_is_late_with_nothing_to_wait_for(self):
        error = self.refused(measured(2.0), ticket(deadline_s=1.0))
        assert (error.kind, error.retry_after_s) == ("late", None)
        assert "1000.0 ms until the deadline, expected at least 2000.0 ms" in str(error)

    def test_an_old_estimate_refuses_nobody_whom_an_idle_engine_could_take(self):
        queue = measured(2.0)
        late = STALE_S + 0.1
        assert queue.submit(ticket(deadline_s=late + 1.0), late) is not None

    def test_what_is_ahead_counts_and_says_when_to_come_again(self):
        queue = measured(1.0)
        queue.submit(ticket(), 0.0)
        queue.submit(ticket(), 0.0)
        error = self.refused(queue, ticket(deadline_s=2.9))  # the third would be done at 3.0
        assert error.kind == "late"
        assert error.retry_after_s == pytest.approx(0.1)
        assert queue.submit(ticket(deadline_s=3.1), 0.0) is None

    def test_only_what_runs_before_counts(self):
        queue = measured(1.0)
        queue.submit(ticket(), 0.0)
        for _ in range(10):
            queue.submit(ticket(level=5), 0.0)
        assert queue.submit(ticket(level=1, deadline_s=2.5), 0.0) is None
        assert self.refused(queue, ticket(level=5, deadline_s=2.5)).kind == "late"

    def test_two_slots_work_twice_as_fast(self):
        queue = measured(1.0, slots=2)
        for _ in range(4):
            queue.submit(ticket(), 0.0)
        assert queue.submit(ticket(deadline_s=2.6), 0.0) is None  # behind 2 of 1 s on 2 slots


EVENTS = st.lists(
    st.one_of(
        st.tuples(
            st.just("submit"),
            st.sampled_from([SIZE, OTHER]),
            st.integers(1, 3),  # images
            st.sampled_from([1, 5, 9]),
            st.floats(0.01, 20),  # seconds until the deadline
        ),
        st.tuples(st.just("finish"), st.integers(0, 3)),
        st.tuples(st.just("withdraw"), st.integers(0, 50)),
        st.tuples(st.just("wait"), st.floats(0.01, 3)),
    ),
    max_size=60,
)
LIMITS = st.builds(
    Limits,
    max_batch=st.integers(3, 6),
    slots=st.integers(1, 3),
    max_queue=st.integers(0, 12),
    max_delay_s=st.sampled_from([0.0, 0.5]),
)


@given(LIMITS, EVENTS)
def test_whatever_happens(limits, events):
    """Nobody runs twice, too many, mixed, too late in order or not at all."""
    queue, now = Dispatcher("toy", limits, Estimate()), 0.0
    admitted, ran, withdrawn, running = [], [], [], []

    def start(batch, before) -> None:
        if batch is None:
            return
        assert 1 <= batch.count <= limits.max_batch
        assert batch.count == sum(one.count for one in batch.tickets)
        assert {one.size for one in batch.tickets} == {batch.size}
        same = [one for one in before if one.size == batch.size]
        assert batch.tickets[0] is before[0]
        assert list(batch.tickets) == same[: len(batch.tickets)]
        assert not set(batch.tickets) & {*ran, *withdrawn}
        ran.extend(batch.tickets)
        running.append(batch)
        assert len(running) <= limits.slots

    def poll() -> None:
        while queue.may_start:
            before = list(queue.waiting)
            batch = queue.poll(now)
            if batch is None:
                assert limits.max_delay_s  # else nothing waits while a slot is idle
                assert now < queue.wake_s <= before[0].queued_s + limits.max_delay_s
                return
            start(batch, before)

    for event in events:
        before = list(queue.waiting)
        if event[0] == "submit":
            _, size, n, level, slack = event
            new = ticket(size=size, n=n, level=level, deadline_s=now + slack, queued_s=now)
            try:
                batch = queue.submit(new, now)
            except RefusedError:
                assert list(queue.waiting) == before
                continue
            admitted.append(new)
            before = sorted([*before, new], key=lambda one: one.level)
            start(batch, before)
        elif event[0] == "finish" and running:
            done = running.pop(event[1] % len(running))
            start(queue.finished(done, now, 0.5 * done.count), before)
        elif event[0] == "withdraw" and before:
            gone = before[event[1] % len(before)]
            assert queue.withdraw(gone)
            withdrawn.append(gone)
        elif event[0] == "wait":
            now += event[1]
        poll()
        assert queue.waiting.images <= max(limits.max_queue, 3)  # one may wait alone
    while running or queue.waiting:
        now += limits.max_delay_s + 0.1
        poll()
        if running:
            before = list(queue.waiting)
            start(queue.finished(running.pop(0), now, None), before)
    assert sorted(map(id, admitted)) == sorted(map(id, [*ran, *withdrawn]))


@given(
    st.lists(
        st.tuples(st.floats(0, 2), st.sampled_from([SIZE, OTHER]), st.floats(1.4, 12)), max_size=40
    ),
    st.integers(1, 6),
)
def test_who_is_let_in_is_answered_in_time_if_the_engine_keeps_its_pace(arrivals, max_batch):
    """One slot, one level, an engine that takes its estimate to the dot."""
    pace = {SIZE: 0.5, OTHER: 0.5 * 16 / 6}
    queue = measured(pace[SIZE], max_batch=max_batch)
    now, running, end_s, refused = 0.0, None, math.inf, 0

    def begin(batch) -> None:
        nonlocal running, end_s
        if batch is not None:
            running, end_s = batch, now + pace[batch.size] * batch.count

    def end() -> None:
        nonlocal running, end_s, now
        now, done, running = end_s, running, None
        assert all(now <= one.deadline_s + 1e-9 for one in done.tickets)
        end_s = math.inf
        begin(queue.finished(done, now, pace[done.size] * done.count))

    for pause, size, slack in arrivals:
        arrival_s = now + pause
        while end_s <= arrival_s:
            end()
        now = arrival_s
        try:
            begin(queue.submit(ticket(size=size, deadline_s=now + slack, queued_s=now), now))
        except RefusedError:
            refused += 1
    while running is not None:
        end()
    assert not queue.waiting
