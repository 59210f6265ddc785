"""Engines that fail now and then, each run with its own luck."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NoReturn

import numpy as np

from parnet_deploy.errors import ExecutionError
from tests.chaos.faulty import Faults

RATES = {"fail": 2e-3, "bug": 1e-3, "nan": 2e-3, "hang": 1e-3}
"""What share of runs fails, raises something that is no error of ours, writes NaN, hangs."""

TIMEOUT_S, HANG_S = 0.5, 1.0
"""The limit of the runtime, and how long a run hangs that does."""


class RandomFaults(Faults):
    """Draws what is to happen to each run, once ``on``; ``counts`` says what happened."""

    def __init__(self, seed: int, rates: Mapping[str, float] = RATES) -> None:
        super().__init__()
        self.on = False
        self.counts: Counter[str] = Counter()
        self._random, self._lock = random.Random(seed), threading.Lock()
        self._rates, self._pause = dict(rates), threading.Event()
        self._local = threading.local()

    def enter(self, segment: str) -> None:
        """See ``Faults``."""
        self._local.kind = kind = self._draw()
        if kind == "hang":
            self._pause.wait(HANG_S)
        elif kind == "fail":
            raise ExecutionError(f"segment {segment}: the engine failed (injected). Try again.")
        elif kind == "bug":
            _raise_bug()

    def leave(self, segment: str, outputs: Iterable[np.ndarray]) -> None:
        """See ``Faults``."""
        if self._local.kind == "nan":
            for array in outputs:
                array.flat[0] = np.nan

    def _draw(self) -> str:
        with self._lock:
            drawn = self._random.random() if self.on else 1.0
            for kind, rate in self._rates.items():
                if drawn < rate:
                    self.counts[kind] += 1
                    return kind
                drawn -= rate
            return ""


def _raise_bug() -> NoReturn:
    raise RuntimeError("a bug of an engine (injected)")
