"""From what a contest found to what the report says of each arm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..contest.entrant import Entrant
from .result import OURS, ArmResult, Mode, ModeResult
from .statistics import block_length, quantiles, ratio

_MIB = 2**20


@dataclass(frozen=True, kw_only=True)
class Turns:
    """What ``Contest.rounds`` returned in one mode, with its ``calls`` and ``late``."""

    samples_ms: Mapping[str, Sequence[float]]
    calls: int
    late: Mapping[str, int]

    @property
    def rounds(self) -> int:
        """How many rounds there were."""
        return len(next(iter(self.samples_ms.values()))) // self.calls


def arm_result(entrant: Entrant, turns: Mapping[Mode, Turns]) -> ArmResult:
    """All that is known of an arm that was checked and timed."""
    if entrant.check is None:
        raise ValueError(f"arm {entrant.spec.name}: it was not checked")
    return ArmResult(
        note=entrant.note,
        network=entrant.spec.network,
        precision=entrant.precision,
        facts=entrant.facts,
        import_ms=entrant.import_ms,
        load_ms=entrant.load_ms,
        first_ms=entrant.first_ms,
        memory_mib=entrant.memory_mib,
        model_mib=None if entrant.model_bytes is None else entrant.model_bytes / _MIB,
        parameters=entrant.parameters,
        macs=entrant.macs,
        check=entrant.check,
        modes={mode: mode_result(entrant.spec.name, found) for mode, found in turns.items()},
    )


def mode_result(name: str, turns: Turns) -> ModeResult:
    """One arm in one mode. Calls of one turn are never taken apart when intervals are drawn."""
    samples, ours = turns.samples_ms[name], turns.samples_ms[OURS]
    block = max(turns.calls, block_length(samples))
    return ModeResult(
        samples_ms=list(samples),
        quantiles_ms=quantiles(samples, block=block),
        ratio_to_ours=ratio(samples, ours, block=max(block, block_length(ours))),
        late=turns.late[name],
    )
