"""A program that runs a deployment in its own threads: ``python -m tests.soak.embedded '<JSON>'``.

Threads call one runtime in every way that it has, while its engines fail now and then. Every answer
is checked, every failure must be an error of ours, and no buffer may change when there was one.
"""

from __future__ import annotations

import json
import random
import sys
import threading
import time
from array import array
from collections import Counter
from collections.abc import Callable
from concurrent.futures import CancelledError
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from parnet_deploy import Runtime
from parnet_deploy.errors import ExecutionError, InputError, TimedOutError
from parnet_deploy.runtime import opened
from parnet_deploy.runtime.arrays.inputs import address_of
from tests.chaos.faulty import FaultyBackend
from tests.serve.load.known import Known
from tests.serve.load.tally import spread, thirds
from tests.soak.random_faults import TIMEOUT_S, RandomFaults

SLOTS = 2


@dataclass
class Work:
    """What the threads share. ``ends`` counts how calls ended, ``problems`` what must not be."""

    runtime: Runtime
    known: Known
    until_s: float
    per_s: float
    ends: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    ok_ms: array[float] = field(default_factory=lambda: array("d"))
    lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, kind: str, ms: float | None = None) -> None:
        """One more."""
        with self.lock:
            self.ends[kind] += 1
            if ms is not None:
                self.ok_ms.append(ms)

    def failed(self, way: str, error: Exception) -> None:
        """Count a call that raised this."""
        for kind, type_, text in (
            ("timed out", TimedOutError, ""),
            ("nan", ExecutionError, "NaN or infinities"),
            ("fail", ExecutionError, "(injected)"),
            ("bug", RuntimeError, "(injected)"),
        ):
            if isinstance(error, type_) and text in str(error):
                self.count(kind)
                return
        self.count("unexpected")
        self.problems.append(f"{way}: {error!r}")

    def check(self, index: int, logits: np.ndarray, ms: float) -> None:
        """Count an answer, which must be that of its image."""
        right = logits.shape == (1, self.known.logits.shape[1]) and self.known.is_right(
            index, logits[0]
        )
        self.count("ok" if right else "wrong", ms)


Way = Callable[[Work, random.Random, int, np.ndarray], None]


def call(work: Work, rng: random.Random, index: int, x: np.ndarray) -> None:
    """``runtime(x)``."""
    begin = time.perf_counter()
    logits = work.runtime(x)
    work.check(index, logits, 1e3 * (time.perf_counter() - begin))


def run_into(work: Work, rng: random.Random, index: int, x: np.ndarray) -> None:
    """Into the caller's memory, which is untouched after an error."""
    logits = np.full((1, work.known.logits.shape[1]), 7, np.float32)
    begin = time.perf_counter()
    try:
        work.runtime.run_into(address_of(x), address_of(logits), 1)
    except ExecutionError:
        if not np.all(logits == 7):
            work.problems.append("run_into: the buffer was written though the call failed")
        raise
    work.check(index, logits, 1e3 * (time.perf_counter() - begin))


def submit(work: Work, rng: random.Random, index: int, x: np.ndarray) -> None:
    """Several at once, some of them cancelled."""
    begin = time.perf_counter()
    futures = [work.runtime.submit(x) for _ in range(3)]
    if rng.random() < 0.3:
        futures[-1].cancel()
    for future in futures:
        try:
            logits = future.result()
        except CancelledError:
            work.count("cancelled")
        except Exception as error:
            work.failed("submit", error)
        else:
            work.check(index, logits, 1e3 * (time.perf_counter() - begin))


def malformed(work: Work, rng: random.Random, index: int, x: np.ndarray) -> None:
    """What must be refused."""
    for bad in (x[:, :, :-1], x.astype(np.float64), np.repeat(x, 99, axis=0), x[0]):
        try:
            work.runtime(bad)
        except InputError:
            work.count("refused")
        else:
            work.problems.append(f"an input of {bad.dtype} {bad.shape} was answered")


def prove(work: Work, rng: random.Random, index: int, x: np.ndarray) -> None:
    """The canary, once more."""
    work.runtime.prove()
    work.count("proved")


LOAD: tuple[tuple[Way, ...], ...] = (
    (call, call, call, malformed),
    (call,),
    (run_into,),
    (submit, submit, submit, prove),
)
"""What each thread does, in turn by chance."""


def serve_thread(work: Work, number: int) -> None:
    """One thread: calls at a steady rate, until the time is over."""
    rng, pause = random.Random(number), threading.Event()
    due = time.monotonic() + rng.random() / work.per_s
    while (now := time.monotonic()) < work.until_s:
        pause.wait(max(0.0, due - now))
        due = max(due + 1 / work.per_s, time.monotonic())
        index = rng.randrange(len(work.known.images))
        x = work.known.images[index][None].copy()
        way = rng.choice(LOAD[number])
        try:
            way(work, rng, index, x)
        except Exception as error:
            work.failed(way.__name__, error)


def main(given: dict[str, Any]) -> dict[str, Any]:
    """Run it all, and report."""
    faults = RandomFaults(seed=2)
    opened.load_backend = lambda name: FaultyBackend(faults)
    known = Known.load(Path(given["known"]))
    runtime = Runtime.open(
        given["deployment"], threads=1, slots=SLOTS, timeout_s=TIMEOUT_S, check_finite=True
    )
    with runtime:
        faults.on = True
        until_s = time.monotonic() + given["seconds"]
        work = Work(runtime, known, until_s, given["per_s"])
        threads = [
            threading.Thread(target=serve_thread, args=(work, number))
            for number in range(len(LOAD))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        faults.on = False
    return {
        "ends": work.ends,
        "injected": faults.counts,
        "problems": work.problems[:20],
        "ok_ms": spread(work.ok_ms),
        "ok_ms_by_thirds": thirds(work.ok_ms),
    }


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
