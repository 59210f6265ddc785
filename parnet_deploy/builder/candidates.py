"""Which placements are worth measuring on a machine, and which one a name means."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from ..errors import SpecError
from ..input_size import InputSize
from ..placement import Placement, one, recompute, streams
from ..spec import ModelSpec
from .precisions import FLOAT32
from .predict import predict

DEFAULT_BACKEND = "onnxruntime"
PLACEMENTS = ("auto", "one", "one-aux", "streams", "recompute")
CPU_PLACEMENTS = ("auto", "one", "streams")
_SEVERAL = {"streams": streams, "recompute": recompute}


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A placement, and how its engines are built.

    ``threads`` is how many cores they may use (None: every usable one; on GPUs it means nothing).
    ``aux_streams`` is how many cuda_streams one engine may use besides its own. ``on_cpu`` says
    which of the two its label tells. ``precision`` is that of the graphs it is built from.
    ``backend`` runs the engines (None: the one of the build); of a mixed candidate ``backends``
    gives each segment's.
    """

    placement: Placement
    threads: int | None = None
    aux_streams: int = 0
    on_cpu: bool = True
    precision: str = FLOAT32.precision
    backend: str | None = None
    backends: tuple[tuple[str, str], ...] = ()

    @property
    def name(self) -> str:
        """The name by which a user asks for it."""
        return f"{self.placement.name}-aux" if self.aux_streams else self.placement.name

    @property
    def devices(self) -> tuple[int, ...]:
        """The device of each stream, in their order; only one if that is all."""
        homes = {
            part: segment.device for segment in self.placement.segments for part in segment.parts
        }
        streams_ = sorted((part for part in homes if part.startswith("stream")), key=_number)
        found = tuple(homes[part] for part in streams_)
        return found if len(self.placement.devices) > 1 else self.placement.devices

    @property
    def label(self) -> str:
        """For tables, different for any two candidates of one build."""
        if self.on_cpu:
            plural = "" if self.threads == 1 else "s"
            where = "all cores" if self.threads is None else f"{self.threads} core{plural}"
        else:
            plural = "s" if len(self.devices) > 1 else ""
            where = f"device{plural} {','.join(map(str, self.devices))}"
        aux = f", {self.aux_streams} auxiliary stream(s)" if self.aux_streams else ""
        lower = "" if self.precision == FLOAT32.precision else f", {self.precision}"
        told = "" if self.backend in (None, DEFAULT_BACKEND) else f", {self.backend}"
        mix = f" ({self.mix})" if self.backends else ""
        return f"{self.placement.name}, {where}{aux}{lower}{told}{mix}"

    @property
    def mix(self) -> str:
        """Of a mixed candidate, what runs on which backend."""
        homes: dict[str, list[str]] = {}
        for segment, backend in self.backends:
            homes.setdefault(backend, []).append(segment)
        return "; ".join(f"{name}: {', '.join(segments)}" for name, segments in homes.items())

    @property
    def conversions(self) -> int:
        """How many tensors pass from an engine of one backend to one of another."""
        home, makers = dict(self.backends), dict[str, str]()
        found = set()
        for segment in self.placement.segments:
            for tensor in segment.inputs:
                maker = makers.get(tensor)
                if maker is not None and home.get(maker) != home.get(segment.name):
                    found.add((tensor, home.get(segment.name)))
            makers |= dict.fromkeys(segment.outputs, segment.name)
        return len(found)

    @property
    def single(self) -> bool:
        """Whether it is one engine: what everything else must beat."""
        return len(self.placement.segments) == 1

    def to_json(self) -> dict[str, Any]:
        """How it stands in the table of a plan, as plain JSON types."""
        return {
            "candidate": self.label,
            "placement": self.name,
            "devices": list(self.devices),
            "aux_streams": self.aux_streams,
            "threads": self.threads,
            "precision": self.precision,
            **({} if self.backend is None else {"backend": self.backend}),
            **({"backends": dict(self.backends)} if self.backends else {}),
            **({"conversions": self.conversions} if self.backends else {}),
        }


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
        raise _unknown(name, CPU_PLACEMENTS, " on the CPU" if name in PLACEMENTS else "")
    several = (threads or cores) > 1
    found = [Candidate(placement=one(spec), threads=threads)]
    if threads is None and several:
        found.append(Candidate(placement=one(spec), threads=1))
    if several:
        found.append(Candidate(placement=streams(spec), threads=threads))
    return tuple(found)


def device_candidates(
    spec: ModelSpec, name: str, devices: Sequence[int], *, aux_streams: int | None = None
) -> tuple[Candidate, ...]:
    """What to build for numbered devices; more than one only for "auto", simplest first.

    "auto" is one engine, one engine with auxiliary streams, and an engine per stream (stems shared
    or recomputed) on the first device, the first two, and so on. A name alone means all the devices
    that were asked for. Streams share devices, in lanes of their own, where there are fewer of
    these: a list that names a device again says which stream goes where, else see ``spread``.

    Args:
        spec: The network.
        name: One of ``PLACEMENTS``.
        devices: Ordinals, the first most important.
        aux_streams: For the one engine that has them; None: one less than the network's streams.
            0 leaves that candidate out: the backend cannot have them.

    Raises:
        SpecError: There is no placement of this name, or not with so few auxiliary streams.
    """
    aux = spec.streams - 1 if aux_streams is None else aux_streams
    known = PLACEMENTS if aux else tuple(item for item in PLACEMENTS if item != "one-aux")
    if name not in known:
        raise _unknown(name, known, " without auxiliary streams" if name in PLACEMENTS else "")
    single = one(spec, devices[0])
    found = []
    if name in ("auto", "one"):
        found.append(Candidate(placement=single, on_cpu=False))
    if name == "one-aux" or (name == "auto" and aux):
        found.append(Candidate(placement=single, aux_streams=aux, on_cpu=False))
    counts = range(1, len(devices) + 1) if name == "auto" else [len(devices)]
    for count in counts:
        for kind, make in _SEVERAL.items():
            if name in ("auto", kind):
                placement = make(spec, spread(make, spec, devices[:count]))
                found.append(Candidate(placement=placement, on_cpu=False))
    return tuple(dict.fromkeys(found))


def spread(
    make: Callable[[ModelSpec, Sequence[int]], Placement], spec: ModelSpec, devices: Sequence[int]
) -> tuple[int, ...]:
    """The device of each stream: as few multiply-accumulates in a row as these devices allow.

    Args:
        make: The kind of placement.
        spec: The network.
        devices: Ordinals; a list with repetitions, or one for every stream, is taken as it is.
    """
    if len(set(devices)) < len(devices) or len(devices) >= spec.streams:
        return tuple(devices)
    side = spec.size_multiple
    size = InputSize(low=(side, side), high=(side, side))
    ways = (
        way
        for way in product(devices, repeat=spec.streams)
        if tuple(dict.fromkeys(way)) == tuple(devices)  # all of them, and no way twice
    )
    return min(ways, key=lambda way: predict(make(spec, way), spec, size).path_macs)


def _number(part: str) -> int:
    return int(part.removeprefix("stream"))


def _unknown(name: str, known: Sequence[str], where: str) -> SpecError:
    return SpecError(f"placement{where}: got {name!r}, expected one of {', '.join(known)}.")
