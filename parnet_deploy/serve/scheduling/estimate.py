"""How long the engine takes, from what it took lately."""

from __future__ import annotations

import math
from collections import OrderedDict, deque

from .ticket import Size

RECENT = 9
"""Runs of one kind that count: their median is the estimate, so one hiccup changes nothing."""

KINDS = 256
"""Kinds (image size, batch) that are kept; the least recently measured goes first."""


class Estimate:
    """Running medians by image size and batch. Not thread-safe: the scheduler's lock guards it.

    ``measured_s``: when the last run ended; before the first one long ago.
    """

    def __init__(self) -> None:
        self.measured_s = -math.inf
        self._recent: OrderedDict[tuple[Size, int], deque[float]] = OrderedDict()
        self._median: dict[tuple[Size, int], float] = {}

    def add(self, size: Size, count: int, run_s: float, now: float) -> None:
        """A batch of so many images took so long."""
        key = (size, count)
        recent = self._recent.get(key)
        if recent is None:
            if len(self._recent) >= KINDS:
                del self._median[self._recent.popitem(last=False)[0]]
            recent = self._recent[key] = deque(maxlen=RECENT)
        else:
            self._recent.move_to_end(key)
        recent.append(run_s)
        self._median[key] = sorted(recent)[len(recent) // 2]
        self.measured_s = now

    def run_s(self, size: Size, count: int) -> float:
        """Time of one batch; 0 if nothing at all was measured yet.

        A kind that was never run is taken from its neighbour: as many times longer as it has more
        pixels than a smaller batch, as long as a larger one, else by pixels from another size.
        """
        known = self._median.get((size, count))
        return self._guess(size, count) if known is None else known

    def drain_s(self, size: Size, images: int, max_batch: int) -> float:
        """Time of so many images in full batches, one after the other."""
        full, rest = divmod(images, max_batch)
        time_s = full * self.run_s(size, max_batch) if full else 0.0
        return time_s + (self.run_s(size, rest) if rest else 0.0)

    def _guess(self, size: Size, count: int) -> float:
        same = {n: time_s for (other, n), time_s in self._median.items() if other == size}
        smaller = [n for n in same if n < count]
        if smaller:
            scaled = same[max(smaller)] * count / max(smaller)
            larger = [same[n] for n in same if n > count]
            return min([scaled, *larger])
        if same:
            return same[min(same)]
        if not self._recent:
            return 0.0
        (other, n), _ = next(reversed(self._recent.items()))
        return self._median[other, n] * (count * math.prod(size)) / (n * math.prod(other))
