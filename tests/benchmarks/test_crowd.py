"""Blocks of calls that threads make at the same time."""

from __future__ import annotations

import threading
import time

import numpy as np


def test_every_thread_makes_its_calls_beside_the_others(benchmarks):
    from crowd import WARM_UP, alternate_blocks

    meeting, order, lock = threading.Barrier(3, timeout=30), [], threading.Lock()

    def call(name: str, index: int) -> None:
        meeting.wait()  # ends only if all three call at the same time
        with lock:
            order.append((name, index))

    arms = {
        name: [lambda name=name, index=index: call(name, index) for index in range(3)]
        for name in ("a", "b")
    }
    blocks = alternate_blocks(arms, rounds=2, calls=5, pause_ms=0.0)
    each = 3 * (5 + WARM_UP)
    names = [name for name, _ in order]
    assert names == ["a"] * each + ["b"] * (2 * each) + ["a"] * each
    assert {name: len(found) for name, found in blocks.items()} == {"a": 2, "b": 2}
    assert all(len(block.wall_us) == len(block.cpu_us) == 15 for block in blocks["a"])


def test_waiting_takes_time_and_no_core(benchmarks):
    from crowd import alternate_blocks

    never, burn_ns = threading.Event(), 20_000_000

    def burn() -> None:
        until = time.thread_time_ns() + burn_ns
        while time.thread_time_ns() < until:
            pass

    arms = {"wait": [lambda: never.wait(0.01)], "burn": [burn]}
    blocks = alternate_blocks(arms, rounds=1, calls=3, pause_ms=1.0)
    assert (blocks["burn"][0].cpu_us >= burn_ns / 1e3).all()
    assert (blocks["burn"][0].wall_us >= blocks["burn"][0].cpu_us - 1).all()
    assert blocks["wait"][0].cpu_us.sum() < blocks["wait"][0].wall_us.sum()


def test_what_is_added_is_the_difference_within_a_round(benchmarks):
    from crowd import Block, added_by

    def blocks(times):
        return [Block(wall_us=np.full(10, t), cpu_us=np.zeros(10)) for t in times]

    ours, base = blocks([11, 103, 1007]), blocks([1, 100, 1000])
    assert added_by(ours, base, "wall_us", 0.99)["value"] == 7
