"""What a model has done so far, as the protocol's statistics extension counts it."""

from __future__ import annotations

import time
from typing import Any

from ..protocol.contract import Document
from ..protocol.request import Timings


class Tally:
    """How often, and how long in all."""

    __slots__ = ("count", "total_s")

    def __init__(self) -> None:
        self.count, self.total_s = 0, 0.0

    def add(self, time_s: float) -> None:
        """Once more."""
        self.count += 1
        self.total_s += time_s

    def to_json(self) -> dict[str, int]:
        """``StatisticDuration`` of the protocol."""
        return {"count": self.count, "ns": round(self.total_s * 1e9)}


class ModelStatistics:
    """Counts of one model since the server started, whichever deployment answered.

    A request counts in ``success`` or ``fail`` (refusals included), from its arrival to its answer.
    ``execution_count`` is of engine runs, ``inference_count`` of images in them. ``compute_input``
    is the preparation of encoded images, ``compute_infer`` the engine run with its copies, and
    ``compute_output`` the rest: the request was read, the answer made and passed between threads.
    Of batches only the engine run is known.
    """

    _PHASES = ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output")

    def __init__(self) -> None:
        self._tallies = {name: Tally() for name in self._PHASES}
        self._batches: dict[int, Tally] = {}
        self._images = self._runs = 0
        self._last_s = 0.0

    def succeeded(self, total_s: float, timings: Timings) -> None:
        """A request was answered."""
        tallies = self._tallies
        tallies["success"].add(total_s)
        tallies["queue"].add(timings.queue_s)
        tallies["compute_input"].add(timings.prepare_s)
        tallies["compute_infer"].add(timings.infer_s)
        known_s = timings.queue_s + timings.prepare_s + timings.infer_s
        tallies["compute_output"].add(max(0.0, total_s - known_s))

    def failed(self, total_s: float) -> None:
        """A request was refused or failed."""
        self._tallies["fail"].add(total_s)

    def ran(self, images: int, run_s: float) -> None:
        """The engine has run a batch."""
        self._runs += 1
        self._images += images
        self._last_s = time.time()
        if images not in self._batches:
            self._batches[images] = Tally()
        self._batches[images].add(run_s)

    def to_json(self, name: str, version: str) -> Document:
        """``ModelStatistics`` of the protocol."""
        nothing = Tally().to_json()
        batches: list[dict[str, Any]] = [
            {
                "batch_size": size,
                "compute_input": {"count": tally.count, "ns": 0},
                "compute_infer": tally.to_json(),
                "compute_output": {"count": tally.count, "ns": 0},
            }
            for size, tally in sorted(self._batches.items())
        ]
        return {
            "name": name,
            "version": version,
            "last_inference": round(self._last_s * 1e3),
            "inference_count": self._images,
            "execution_count": self._runs,
            "inference_stats": {
                **{phase: tally.to_json() for phase, tally in self._tallies.items()},
                "cache_hit": nothing,
                "cache_miss": nothing,
            },
            "batch_stats": batches,
        }
