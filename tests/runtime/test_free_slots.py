"""The stack of free slots: last in, first out; a wait for one; whole moves only."""

from __future__ import annotations

import contextlib
import threading

from parnet_deploy.runtime.free_slots import FreeSlots


def filled(*slots: str) -> FreeSlots:
    free = FreeSlots()
    for slot in slots:
        any(free.give([slot]))
    return free


def test_the_slot_given_back_last_is_taken_first():
    free = filled("a", "b")
    assert free.qsize() == 2
    mine = list(free.take())
    assert mine == ["b"]
    any(free.give(mine))
    assert mine == []
    assert [*free.take(), *free.take()] == ["b", "a"]
    assert free.qsize() == 0


def test_giving_back_what_is_not_there_does_nothing():
    free, mine = filled("a"), []
    for _ in range(2):
        with contextlib.suppress(IndexError):  # of the empty list, before anything was moved
            any(free.give(mine))
    assert free.qsize() == 1


def test_nothing_moves_before_the_iterator_is_used():
    free, mine = filled("a"), ["b"]
    free.take()
    free.give(mine)
    assert (free.qsize(), mine) == (1, ["b"])


def test_whoever_waits_gets_the_next_that_is_given():
    free, got = filled(), []
    waiting = [threading.Thread(target=lambda: got.extend(free.take())) for _ in range(4)]
    for thread in waiting:
        thread.start()
    for slot in "abcd":
        any(free.give([slot]))
    for thread in waiting:
        thread.join(60)
    assert sorted(got) == list("abcd")


def test_many_threads_never_share_a_slot():
    free, used, clashes = filled(*"abc"), set(), []

    def work() -> None:
        for _ in range(2000):
            mine = list(free.take())
            if mine[0] in used:
                clashes.append(mine[0])
            used.add(mine[0])
            used.discard(mine[0])
            any(free.give(mine))

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not clashes
    assert free.qsize() == 3
