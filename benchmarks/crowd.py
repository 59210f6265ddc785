"""Time calls that several threads make at the same time."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from parnet_deploy.bench.result import Interval
from parnet_deploy.bench.statistics import interval

Call = Callable[[], object]

WARM_UP = 10
"""Calls of each thread in each block that are not counted: a new thread begins with cold caches."""


@dataclass(frozen=True, kw_only=True)
class Block:
    """What all threads of one block measured, in microseconds a call.

    ``cpu_us`` is the time that the calling thread itself had a core; an engine with one thread runs
    in it.
    """

    wall_us: NDArray[np.float64]
    cpu_us: NDArray[np.float64]


def alternate_blocks(
    arms: Mapping[str, Sequence[Call]], *, rounds: int, calls: int, pause_ms: float
) -> dict[str, list[Block]]:
    """A block of each arm in each round, in an order that is reversed from round to round.

    Args:
        arms: The call of each thread, by name of the arm.
        rounds: Blocks of each arm.
        calls: Of each thread in a block.
        pause_ms: Mean of the random pause before each call; 0: one call straight after the other.
    """
    blocks: dict[str, list[Block]] = {name: [] for name in arms}
    for done in range(rounds):
        for name in arms if done % 2 == 0 else reversed(arms):
            blocks[name].append(_time_block(arms[name], calls, pause_ms, seed=done))
    return blocks


def quantiles(blocks: Sequence[Block], what: str, q: float) -> NDArray[np.float64]:
    """Of ``wall_us`` or ``cpu_us``, one for each block."""
    return np.array([np.quantile(getattr(block, what), q) for block in blocks])


def added_by(ours: Sequence[Block], base: Sequence[Block], what: str, q: float) -> Interval:
    """How far a quantile of ours lies above that of the base: the median over the rounds."""
    return interval(list(quantiles(ours, what, q) - quantiles(base, what, q)))


def _time_block(arm: Sequence[Call], calls: int, pause_ms: float, seed: int) -> Block:
    start = threading.Barrier(len(arm))
    wall = np.zeros((len(arm), calls))
    cpu = np.zeros((len(arm), calls))

    def work(index: int) -> None:
        call, draw = arm[index], random.Random(1000 * seed + index)
        pauses = [draw.expovariate(1e3 / pause_ms) if pause_ms else 0.0 for _ in range(calls)]
        start.wait()
        for _ in range(WARM_UP):
            call()
        for at, pause in enumerate(pauses):
            if pause:
                time.sleep(pause)
            began, had = time.perf_counter_ns(), time.thread_time_ns()
            call()
            cpu[index, at] = time.thread_time_ns() - had
            wall[index, at] = time.perf_counter_ns() - began

    threads = [threading.Thread(target=work, args=(index,)) for index in range(len(arm))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return Block(wall_us=wall.ravel() / 1e3, cpu_us=cpu.ravel() / 1e3)
