"""Whose turn it is, and how many calls a turn has."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

SHORT_MS = 1.0  # calls that are shorter come in bursts
BURST_MS = 5.0  # what a burst of the fastest arm should take
MAX_BURST = 16
PACED_CALLS = 5
LEAST_ROUNDS = 5
"""Rounds before two arms are held against each other. A round is one draw of the bootstrap where
its calls resemble each other: equal arms were told apart in 94 of 100 runs of one round, in 50 of
two, in 15 of five of them."""

Mode = Literal["saturated", "paced"]


@dataclass(frozen=True, kw_only=True)
class Turn:
    """``lead`` untimed calls, then ``calls`` timed ones; the same for every arm, so samples pair.

    With a period the calls begin that many seconds apart, else at once.
    """

    lead: int = 0
    calls: int = 1
    period_s: float | None = None

    def expected_ms(self, call_ms: float) -> float:
        """How long it should take an arm whose calls take so long."""
        if self.period_s is not None:
            period_ms = 1e3 * self.period_s
            call_ms = period_ms * math.ceil(call_ms / period_ms)
        return (self.lead + self.calls) * call_ms


def saturated_turn(medians_ms: Mapping[str, float]) -> Turn:
    """One call; a burst where waking the fastest arm's process would shape the figure.

    The first call of a burst is not timed.
    """
    fastest = min(medians_ms.values(), default=SHORT_MS)
    if fastest >= SHORT_MS:
        return Turn()
    return Turn(lead=1, calls=min(MAX_BURST, math.ceil(BURST_MS / max(fastest, 1e-3))))


def paced_turn(rate_hz: float) -> Turn:
    """Some calls in a row, as of a program that has the machine for itself.

    What was idle for the length of a round answers slower than what was idle for one period, so
    arms that take turns call by call would not be measured as they are used; the first of a row is
    not timed.
    """
    return Turn(lead=1, calls=PACED_CALLS, period_s=1 / rate_hz)


def orders(names: Sequence[str], rounds: int) -> Iterator[list[str]]:
    """The order of each round: shuffled, always in the same way, and no arm follows itself.

    Were it reversed from round to round, the first and the last arm would follow themselves in
    every second round and find caches as they had left them; those in the middle never would.
    """
    generator = random.Random(0)
    last = None
    for _ in range(rounds):
        order = generator.sample(names, len(names))
        while len(order) > 1 and order[0] == last:
            order = generator.sample(names, len(names))
        last = order[-1]
        yield order
