"""What a process takes up, sampled from /proc, and whether it grows."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Sample:
    """One look."""

    at_s: float
    rss_bytes: int
    fds: int
    threads: int
    cpu_s: float
    waited_s: float  # its first thread, able to run and not let: the machine was busy


def look(pid: int) -> Sample:
    """What a process takes up now."""
    root = Path(f"/proc/{pid}")
    fields = (root / "stat").read_text().rpartition(") ")[2].split()
    return Sample(
        at_s=time.monotonic(),
        rss_bytes=int(fields[21]) * _PAGE_BYTES,
        fds=len(list((root / "fd").iterdir())),
        threads=int(fields[17]),
        waited_s=int((root / "schedstat").read_text().split()[1]) / 1e9,
        cpu_s=(int(fields[11]) + int(fields[12])) * _TICK_S,
    )


@dataclass
class Watch:
    """Looks at a process every ``every_s`` while it is in ``with``."""

    pid: int
    every_s: float = 0.5
    samples: list[Sample] = field(default_factory=list)

    def __enter__(self) -> Watch:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self.every_s):
            self.samples.append(look(self.pid))

    def growth(self, name: str, warm_up: float = 0.3) -> float:
        """How much a quantity grew from the warm-up to the end, by the slope of a line through it.

        Args:
            name: A field of ``Sample``.
            warm_up: Share of the time that is left out at the beginning.
        """
        kept = self.samples[int(warm_up * len(self.samples)) :]
        at = np.array([sample.at_s for sample in kept])
        values = np.array([getattr(sample, name) for sample in kept], float)
        slope = np.polyfit(at - at[0], values, 1)[0]
        return float(slope * (at[-1] - at[0]))
