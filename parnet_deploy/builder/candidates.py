"""Which placements are worth measuring on a machine, and which one a name means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import SpecError
from ..placement import Placement, one, streams
from ..spec import ModelSpec

PLACEMENTS = ("auto", "one", "streams")


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A placement and how many cores its engines may use (None: every usable one)."""

    placement: Placement
    threads: int | None = None

    @property
    def label(self) -> str:
        """For tables: the placement and the cores."""
        cores = "all cores" if self.threads is None else f"{self.threads} core(s)"
        return f"{self.placement.name}, {cores}"


def cpu_candidates(
    spec: ModelSpec, name: str, *, threads: int | None, cores: int
) -> tuple[Candidate, ...]:
    """What to build for the CPU; more than one only for "auto", simplest first.

    A small network on one core beats the same on several, for there is nothing to wait for; an
    engine per stream can only win where each lane has a core.
    """
    if name == "one":
        return (Candidate(placement=one(spec), threads=threads),)
    if name == "streams":
        return (Candidate(placement=streams(spec), threads=threads),)
    if name != "auto":
        raise SpecError(f"placement: got {name!r}, expected one of {', '.join(PLACEMENTS)}.")
    several = (threads or cores) > 1
    found = [Candidate(placement=one(spec), threads=threads)]
    if threads is None and several:
        found.append(Candidate(placement=one(spec), threads=1))
    if several:
        found.append(Candidate(placement=streams(spec), threads=threads))
    return tuple(found)


def device_candidates(spec: ModelSpec, name: str, devices: Sequence[int]) -> tuple[Candidate, ...]:
    """What to build for numbered devices; "auto" means an engine per stream."""
    if name == "one":
        return (Candidate(placement=one(spec, devices[0])),)
    if name in ("auto", "streams"):
        return (Candidate(placement=streams(spec, devices)),)
    raise SpecError(f"placement: got {name!r}, expected one of {', '.join(PLACEMENTS)}.")
