"""What can be asked of a runtime without running anything."""

from __future__ import annotations

from typing import Any

from ..input_size import InputSize
from ..plan import Plan
from ..spec import ModelSpec
from .device import TimelineEntry
from .failover import Standby
from .lifetime import Lifetime
from .opened import Opened
from .program import Program


class Described(Lifetime):
    """The questions to a ``Runtime``, which is what there are objects of.

    In a forked child those that ask what is open are refused, as calls are.
    """

    _now: Opened
    _standby: Standby
    _spec: ModelSpec
    _plan: Plan

    @property
    def spec(self) -> ModelSpec:
        """The network."""
        return self._spec

    @property
    def input_size(self) -> InputSize:
        """Image sizes that are accepted."""
        return self._plan.input_size

    @property
    def max_batch(self) -> int:
        """Largest batch that is accepted."""
        return self._plan.max_batch

    @property
    def stuck(self) -> int:
        """Slots out of use, because their engines did not come back in ``timeout_s``."""
        return self._asked.stuck

    def describe(self) -> dict[str, Any]:
        """What runs here and how, as plain JSON types."""
        now = self._asked
        plan = now.plan
        return {
            **now.about,
            "lost": list(self._standby.losses),
            "backend": plan.backend,
            "placement": plan.placement.to_json(),
            "precision": plan.precision,
            "input_size": str(plan.input_size),
            "max_batch": plan.max_batch,
            "median_ms": plan.median_ms,
            "facts": dict(now.loaded.facts),
            "program": now.executor.describe(),
        }

    @property
    def program(self) -> Program:
        """The steps of each call, in whose lanes ``timeline`` says what happened."""
        return self._asked.executor.program

    def timeline(self) -> tuple[TimelineEntry, ...]:
        """Operations finished lately, where the devices record them; simulated ones say so."""
        return self._asked.executor.timeline()

    @property
    def _asked(self) -> Opened:
        if self._inherited:
            raise self._refusal()
        return self._now
