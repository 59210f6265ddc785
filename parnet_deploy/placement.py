"""Which parts are compiled together (a segment), on which device and in which lane they run.

A placement is a pure description; nothing here knows a backend. Two segments in the same lane of a
device run one after the other in the order of the placement; different lanes run concurrently.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import count
from typing import Any

from .errors import SpecError
from .spec import IMAGE, LOGITS, ModelSpec, check_keys

MAX_ORDINAL = 1024


@dataclass(frozen=True, kw_only=True)
class Segment:
    """A group of parts that one engine executes.

    ``device`` is an ordinal of the backend's devices (the CPU is device 0 of its backends) and
    ``lane`` an ordered queue on it: a cuda_stream on a GPU, a thread on the CPU.
    ``wide`` marks a segment that runs while nothing else does, so that it may use every core.
    """

    name: str
    parts: tuple[str, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    device: int = 0
    lane: int = 0
    wide: bool = False


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Segments in an order in which each comes after those that it reads from."""

    name: str
    segments: tuple[Segment, ...]

    @property
    def devices(self) -> tuple[int, ...]:
        """Ordinals of all devices used, ascending."""
        return tuple(sorted({segment.device for segment in self.segments}))

    @property
    def crossings(self) -> tuple[tuple[str, int, int], ...]:
        """Tensors that must be copied between devices: (tensor, from device, to device)."""
        home = {out: segment.device for segment in self.segments for out in segment.outputs}
        found = {
            (name, home[name], segment.device)
            for segment in self.segments
            for name in segment.inputs
            if name in home and home[name] != segment.device
        }
        return tuple(sorted(found))

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types; ``from_json`` reads it back."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Placement:
        """Inverse of ``to_json``.

        Raises:
            SpecError: A key is missing or unknown, or a value has the wrong type or range.
        """
        try:
            check_keys(data, cls)
            for item in data["segments"]:
                check_keys(item, Segment)
            segments = tuple(
                Segment(
                    name=_text(item["name"]),
                    parts=_texts(item["parts"]),
                    inputs=_texts(item["inputs"]),
                    outputs=_texts(item["outputs"]),
                    device=_ordinal(item["device"]),
                    lane=_ordinal(item["lane"]),
                    wide=_flag(item["wide"]),
                )
                for item in data["segments"]
            )
            return cls(name=_text(data["name"]), segments=segments)
        except (KeyError, TypeError, ValueError) as error:
            raise SpecError(f"placement: cannot read it: {error!r}.") from error


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"got {value!r:.80}, expected a string")
    return value


def _texts(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list | tuple):
        raise TypeError(f"got {value!r:.80}, expected a list of strings")
    return tuple(_text(item) for item in value)


def _ordinal(value: Any) -> int:
    if type(value) is not int or not 0 <= value < MAX_ORDINAL:
        raise TypeError(f"got {value!r:.80}, expected an integer from 0 to {MAX_ORDINAL - 1}")
    return value


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"got {value!r:.80}, expected true or false")
    return value


def check_placement(placement: Placement, spec: ModelSpec) -> None:
    """Refuse a placement that would not compute the network.

    A part may be in several segments (a stem that is computed anew instead of copied), but a tensor
    is published by one segment only.

    Raises:
        SpecError: A part is missing or unknown, a tensor has no producer or two, a segment comes
            before one that it reads from, its inputs and outputs are not those of its parts, or it
            computes a part from which none of its outputs follows.
    """
    parts = {part.name: part for part in spec.parts}
    where = f"placement {placement.name}"
    known = {IMAGE}
    _refuse_repeated(where, "segments", [segment.name for segment in placement.segments])
    for segment in placement.segments:
        at = f"{where}, segment {segment.name}"
        for what in ("parts", "inputs", "outputs"):
            _refuse_repeated(at, what, getattr(segment, what))
        unknown = [name for name in segment.parts if name not in parts]
        if unknown or not segment.parts:
            raise SpecError(f"{at}: got parts {segment.parts}, expected some of {sorted(parts)}.")
        made = {parts[name].output for name in segment.parts}
        needs = {i for name in segment.parts for i in parts[name].inputs} - made
        if needs != set(segment.inputs) or not set(segment.outputs) <= made:
            raise SpecError(
                f"{at}: got {segment.inputs} -> {segment.outputs}, "
                f"expected {tuple(sorted(needs))} -> some of {tuple(sorted(made))}."
            )
        missing = needs - known
        if missing:
            raise SpecError(f"{at}: reads {sorted(missing)}, which no earlier segment writes.")
        twice = known & set(segment.outputs)
        if twice:
            raise SpecError(f"{at}: writes {sorted(twice)}, which another segment writes too.")
        known |= set(segment.outputs)
    covered = {name for segment in placement.segments for name in segment.parts}
    if covered != set(parts):
        raise SpecError(f"{where}: parts {sorted(set(parts) - covered)} are in no segment.")
    if LOGITS not in known:
        raise SpecError(f"{where}: no segment writes the {LOGITS}.")
    for segment in placement.segments:
        idle = sorted(set(segment.parts) - _contributing(segment, spec))
        if idle:
            raise SpecError(
                f"{where}, segment {segment.name}: got parts {idle} that none of its outputs "
                f"{segment.outputs} needs, expected them in another segment only."
            )


def _contributing(segment: Segment, spec: ModelSpec) -> set[str]:
    """The parts of a segment from which its outputs follow."""
    wanted, found = set(segment.outputs), set[str]()
    for part in reversed(spec.parts):
        if part.name in segment.parts and part.output in wanted:
            found.add(part.name)
            wanted |= set(part.inputs)
    return found


def _refuse_repeated(where: str, what: str, names: Sequence[str]) -> None:
    if len(set(names)) < len(names):
        raise SpecError(f"{where}: got {what} {tuple(names)}, expected each only once.")


def one(spec: ModelSpec, device: int = 0) -> Placement:
    """The whole network as one engine on one device."""
    segment = _segment(spec, "all", [part.name for part in spec.parts], device=device, wide=True)
    return Placement(name="one", segments=(segment,))


def streams(spec: ModelSpec, devices: Sequence[int] = (0,)) -> Placement:
    """An engine per stream, stems shared; stream i runs on ``devices[i % len(devices)]``.

    The critical path (all stems, the last stream, the head) stays in lane 0 of one device, the one
    of the last stream, for by multiply-accumulates it is the longest. Stream i < S-1 has a
    lane of its own, and its fusion runs there. A segment ends where another lane is waiting.
    """
    last = spec.streams - 1
    main = devices[last % len(devices)]
    segments = []
    for i in range(spec.streams):
        here = devices[i % len(devices)]
        names = [f"stem{i}", f"stream{i}"] if i == last else [f"stem{i}"]
        segments.append(_segment(spec, names[-1], names, device=main, wide=i == 0))
        if i < last:
            names = ["stream0", "fusion0"] if i == 0 else [f"stream{i}"]
            segments.append(_segment(spec, f"stream{i}", names, device=here, lane=i + 1))
    for i in range(1, last):
        here = devices[i % len(devices)]
        segments.append(_segment(spec, f"fusion{i}", [f"fusion{i}"], device=here, lane=i + 1))
    segments.append(_segment(spec, "head", ["head"], device=main, wide=True))
    return Placement(name="streams", segments=tuple(segments))


def chain(spec: ModelSpec, groups: Sequence[Sequence[str]]) -> Placement:
    """Engines one after the other in one lane, each with every core to itself.

    Args:
        spec: The network.
        groups: The parts of each engine, in the order of ``spec.parts``; all parts, unless it is
            only to be looked at.
    """
    segments = [
        _segment(spec, "+".join(dict.fromkeys((group[0], group[-1]))), list(group), 0, wide=True)
        for group in groups
    ]
    return Placement(name="chain", segments=tuple(segments))


def recompute(spec: ModelSpec, devices: Sequence[int] = (0,)) -> Placement:
    """An engine per stream that reads the image and computes the stems it needs by itself.

    Stream i runs on ``devices[i % len(devices)]`` in a lane of its own; no stem's output crosses.
    The head runs behind the engine with most arithmetic, in lane 0. A fusion runs behind its own
    stream: it can start there as soon as both of its inputs exist, and delays nobody else.

    Source: the authors' script for three GPUs, imankgoyal/NonDeepNetworks
    ``imagenet/timm/models/simplenet.py`` at 777b286.
    """
    macs = spec.macs(spec.size_multiple, spec.size_multiple)
    chains = [[*(f"stem{k}" for k in range(i + 1)), f"stream{i}"] for i in range(spec.streams)]
    longest = max(range(spec.streams), key=lambda i: (sum(macs[name] for name in chains[i]), i))
    here = [devices[i % len(devices)] for i in range(spec.streams)]
    lanes = [0 if i == longest else i + 1 for i in range(spec.streams)]
    segments = []
    for i, chain in enumerate(chains):
        parts = [*chain, "fusion0"] if i == 0 else chain
        segment = _segment(spec, f"stream{i}", parts, device=here[i], lane=lanes[i])
        segments.append(replace(segment, outputs=("d0",) if i == 0 else (f"y{i}",)))
    for i in range(1, spec.streams - 1):
        name = f"fusion{i}"
        segments.append(_segment(spec, name, [name], device=here[i], lane=lanes[i]))
    segments.append(_segment(spec, "head", ["head"], device=here[longest], wide=True))
    return Placement(name="recompute", segments=tuple(segments))


def remap(placement: Placement, targets: Mapping[int, int]) -> Placement:
    """The same segments on other devices; lanes that were apart stay apart.

    Args:
        placement: What to move.
        targets: Old device -> new one; devices that are not named stay.
    """
    lanes: dict[tuple[int, int], tuple[int, int]] = {}
    homes = [(segment.device, segment.lane) for segment in placement.segments]
    for device, lane in sorted(set(homes), key=lambda home: (home[0] in targets, home)):
        there = targets.get(device, device)
        taken = {used for target, used in lanes.values() if target == there}
        free = lane if lane not in taken else next(n for n in count() if n not in taken)
        lanes[device, lane] = (there, free)
    moved = []
    for segment, home in zip(placement.segments, homes, strict=True):
        device, lane = lanes[home]
        moved.append(replace(segment, device=device, lane=lane))
    return replace(placement, segments=tuple(moved))


def _segment(
    spec: ModelSpec, name: str, parts: list[str], device: int, lane: int = 0, wide: bool = False
) -> Segment:
    """Fill in what the segment reads and which of its tensors somebody else needs."""
    inside = [part for part in spec.parts if part.name in parts]
    made = {part.output for part in inside}
    inputs = {name for part in inside for name in part.inputs} - made
    wanted = {name for part in spec.parts if part not in inside for name in part.inputs}
    return Segment(
        name=name,
        parts=tuple(part.name for part in inside),
        inputs=tuple(sorted(inputs)),
        outputs=tuple(part.output for part in inside if part.output in wanted | {LOGITS}),
        device=device,
        lane=lane,
        wide=wide,
    )
