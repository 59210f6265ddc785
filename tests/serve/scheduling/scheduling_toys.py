"""A clock that stands still, and engines that tests hold in their hands."""

from __future__ import annotations

import heapq
import threading
from itertools import count

import numpy as np

from parnet_deploy.serve.scheduling.dispatcher import Dispatcher, Limits
from parnet_deploy.serve.scheduling.estimate import Estimate
from parnet_deploy.serve.scheduling.ticket import Ticket


class StillClock:
    """Time passes only by ``advance``, which makes the calls that become due, in order."""

    def __init__(self, start_s: float = 1000.0) -> None:
        self._now = start_s
        self._calls: list = []
        self._number = count()

    def now(self) -> float:
        return self._now

    def call_at(self, when_s, callback, *args):
        timer = _Timer(callback, args)
        heapq.heappush(self._calls, (when_s, next(self._number), timer))
        return timer

    def advance(self, time_s: float) -> None:
        end = self._now + time_s
        while self._calls and self._calls[0][0] <= end:
            when_s, _, timer = heapq.heappop(self._calls)
            self._now = max(self._now, when_s)
            timer.fire()
        self._now = end

    @property
    def pending(self) -> int:
        return sum(timer.callback is not None for _, _, timer in self._calls)


class _Timer:
    def __init__(self, callback, args) -> None:
        self.callback, self._args = callback, args

    def cancel(self) -> None:
        self.callback = None

    def fire(self) -> None:
        if self.callback is not None:
            self.callback(*self._args)


def picture(number: int, size=(2, 3), n: int = 1) -> np.ndarray:
    """Images whose every element says which request, and which image of it, they are."""
    images = np.empty((n, 3, *size), np.float32)
    images[:] = (number + np.arange(n, dtype=np.float32) / 16)[:, None, None, None]
    return images


def echo(images: np.ndarray) -> np.ndarray:
    """Logits that say which images they are of."""
    flat = images.reshape(len(images), -1)
    assert (flat == flat[:, :1]).all(), "images were mixed"
    return np.repeat(flat[:, :1], 5, axis=1) * np.arange(1, 6, dtype=np.float32)


def is_answer_to(logits: np.ndarray, images: np.ndarray) -> bool:
    return np.array_equal(logits, echo(images))


class Gate:
    """An engine that computes ``echo`` when it is let; batches that came are in ``seen``."""

    def __init__(self) -> None:
        self.seen: list[np.ndarray] = []
        self._open = threading.Semaphore(0)
        self._entered = threading.Semaphore(0)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        self.seen.append(images.copy())
        self._entered.release()
        self._open.acquire()
        return echo(images)

    def let(self, runs: int = 1) -> None:
        self._open.release(runs)

    def wait_for_run(self) -> None:
        """Block until one more batch is in the engine."""
        assert self._entered.acquire(timeout=60)


def ticket(number=0, *, size=(2, 3), n=1, level=5, deadline_s=1e9, queued_s=0.0) -> Ticket:
    return Ticket(picture(number, size, n), level=level, deadline_s=deadline_s, queued_s=queued_s)


def dispatcher(**limits) -> Dispatcher:
    return Dispatcher("toy", Limits(**limits), Estimate())
