"""What a simulated machine is like, and what can be made to go wrong on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class FaultPlan:
    """Faults to inject; none by default. Segments and devices that do not exist are ignored."""

    slow_us: Mapping[str, float] = field(default_factory=dict)
    """Segment -> extra simulated time of each run (a delayed producer)."""
    fail_once: frozenset[str] = frozenset()
    """Segments whose next run fails; the one after it succeeds."""
    write_nan: frozenset[str] = frozenset()
    """Segments that write NaN."""
    write_wrong: frozenset[str] = frozenset()
    """Segments whose outputs are off by one."""
    misplaced: Mapping[str, int] = field(default_factory=dict)
    """Segment -> device on which its engine really is (wrong device)."""
    lose_device: Mapping[int, int] = field(default_factory=dict)
    """Device -> how many operations it begins before it is lost."""
    memory_bytes: Mapping[int, int] = field(default_factory=dict)
    """Device -> memory that it has."""
    no_route: frozenset[tuple[int, int]] = frozenset()
    """Pairs (from, to) of devices between which no copy is possible."""


@dataclass(frozen=True, kw_only=True)
class FakeOptions:
    """The machine. The rates are invented; nothing is known about a real device from them.

    ``jitter_us``: upper limit of the random delay of each operation (now and then 100 times that).
    ``graphs``: whether ``capture`` works.
    """

    seed: int = 0
    jitter_us: float = 0.0
    macs_per_us: float = 10e6
    bytes_per_us: float = 20e3
    launch_us: float = 5.0
    graphs: bool = False
    faults: FaultPlan = field(default_factory=FaultPlan)
