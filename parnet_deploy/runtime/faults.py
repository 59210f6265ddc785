"""What can be made to go wrong on fake devices."""

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
