"""What became of the requests of a run."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

_KEPT = 10


@dataclass
class Tally:
    """Counts and times. Every request lands in exactly one of the first five.

    ``failed``: told that the engine failed, where the load expects that. ``refused``: politely, to
    be tried again; times in ms by wire and reason. ``unexpected``: any other answer.
    ``unanswered``: none at all. ``wrong``: answered with another image's logits, or NaN. ``mixed``:
    with another id. ``late``: accepted, and answered after its deadline by the client's clock.
    ``unhelpful``: refused without a reason, or without a time to come back.
    """

    ok_ms: list[float] = field(default_factory=list)
    refused: dict[str, list[float]] = field(default_factory=dict)
    unexpected: list[str] = field(default_factory=list)
    unanswered: list[str] = field(default_factory=list)
    failed: int = 0
    wrong: int = 0
    mixed: int = 0
    late: int = 0
    late_by_server: int = 0
    unhelpful: list[str] = field(default_factory=list)

    @property
    def sent(self) -> int:
        """All of them."""
        kinds = (self.ok_ms, self.refused_ms, self.unexpected, self.unanswered)
        return sum(map(len, kinds)) + self.failed

    @property
    def refused_ms(self) -> list[float]:
        """Of all reasons."""
        return [ms for times in self.refused.values() for ms in times]

    def refuse(self, reason: str, ms: float) -> None:
        """Count a refusal; numbers in the reason do not tell it from another."""
        self.refused.setdefault(re.sub(r"\d[\d.]*", "N", reason)[:120], []).append(ms)

    def report(self, seconds: float) -> dict[str, Any]:
        """Plain JSON."""
        return {
            "sent": self.sent,
            "ok": len(self.ok_ms),
            "refused": len(self.refused_ms),
            "failed": self.failed,
            "unexpected": len(self.unexpected),
            "unanswered": len(self.unanswered),
            "wrong": self.wrong,
            "mixed": self.mixed,
            "late": self.late,
            "late_by_server": self.late_by_server,
            "unhelpful": len(self.unhelpful),
            "seconds": seconds,
            "ok_per_s": len(self.ok_ms) / seconds,
            "ok_ms": spread(self.ok_ms),
            "ok_ms_by_thirds": thirds(self.ok_ms),
            "refused_ms": spread(self.refused_ms),
            "reasons": {
                reason: {"count": len(times), **(spread(times) or {})}
                for reason, times in sorted(self.refused.items())
            },
            "examples": [
                *self.unexpected[:_KEPT],
                *self.unanswered[:_KEPT],
                *self.unhelpful[:_KEPT],
            ],
        }


def thirds(values: Sequence[float]) -> list[dict[str, float] | None]:
    """The spread of the first, the middle and the last of them.

    ``typical_p99`` is the median of the 99th percentiles of ten parts of each: a moment in which
    the machine did something else shows in some of them only.
    """
    found = []
    for third in np.array_split(np.asarray(values, float), 3):
        parts = [part for part in np.array_split(third, 10) if part.size]
        typical = float(np.median([np.percentile(part, 99) for part in parts])) if parts else 0.0
        about = spread(third.tolist())
        found.append(None if about is None else {**about, "typical_p99": typical})
    return found


def spread(values: Sequence[float]) -> dict[str, float] | None:
    """Median, 99th percentile and maximum; None of nothing."""
    if not values:
        return None
    p50, p99 = np.percentile(values, [50, 99])
    return {"p50": float(p50), "p99": float(p99), "max": max(values)}
