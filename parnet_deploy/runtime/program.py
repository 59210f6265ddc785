"""A placement as a flat list of steps: upload, run, copy, record, wait, download.

Pure data, made once when a runtime opens. The caller's thread walks it from top to bottom and
enqueues; order between lanes comes from record and wait alone. Three rules make it right:

- Whoever reads a tensor that another lane wrote waits for an event recorded behind the write. The
  producer pushes copies to other devices on its own lane.
- The main lane (the one that computes the logits) is the fork and the join: other lanes begin
  behind its start, and it waits for whatever is not behind it already at its end. So the next walk
  on the same buffers cannot overtake this one.
- A wait that is implied by others is left out (vector clocks), so each that remains is needed.

Lane 0 may run in the thread of the caller (``host``), so other lanes' steps come first where the
order is free.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from ..placement import Placement, Segment
from ..spec import IMAGE, LOGITS, ModelSpec

Op = Literal["upload", "run", "copy", "record", "wait", "download"]


class Lane(NamedTuple):
    """An ordered queue of one device: a stream of each in-flight slot."""

    device: int
    lane: int


@dataclass(frozen=True, kw_only=True)
class Step:
    """One call. ``name`` is a segment (run) or a tensor (upload, copy, download)."""

    op: Op
    lane: Lane
    name: str = ""
    event: int = -1
    target: int = -1

    def __str__(self) -> str:
        where = f"device {self.lane.device} lane {self.lane.lane}"
        if self.op in ("record", "wait"):
            return f"{where}: {self.op} event {self.event}"
        return f"{where}: {self.op} {self.name}" + (
            f" -> device {self.target}" if self.op == "copy" else ""
        )


@dataclass(frozen=True, kw_only=True)
class Program:
    """What one call does.

    ``lanes`` stand in order of urgency, the one with most arithmetic first. ``events`` holds the
    device of each event. ``steps[first:last]`` is the body: it forks from the main lane, joins it
    again, and sees the same addresses in every call, so a device may replay it as a graph.
    """

    steps: tuple[Step, ...]
    main: Lane
    lanes: tuple[Lane, ...]
    events: tuple[int, ...]
    first: int
    last: int

    @property
    def buffers(self) -> tuple[tuple[str, int], ...]:
        """The tensors that are written other than by engines: (tensor, device)."""
        uploads = ((s.name, s.lane.device) for s in self.steps if s.op == "upload")
        copies = ((s.name, s.target) for s in self.steps if s.op == "copy")
        return (*uploads, *copies)


@dataclass
class _Point:
    """A place behind a step that others may wait for. It is recorded only if somebody does."""

    lane: Lane
    position: int
    known: Mapping[Lane, int]
    event: int = -1


@dataclass
class _Compiler:
    """Steps so far; and per lane, how far along each other lane it is known to be behind."""

    items: list[Step | _Point] = field(default_factory=list)
    clocks: dict[Lane, dict[Lane, int]] = field(default_factory=dict)
    latest: dict[Lane, _Point] = field(default_factory=dict)
    events: list[int] = field(default_factory=list)

    def add(self, step: Step) -> _Point:
        """Append work, and a point behind it."""
        self.items.append(step)
        return self.mark(step.lane)

    def mark(self, lane: Lane) -> _Point:
        """A point behind everything in the lane so far."""
        clock = self.clocks.setdefault(lane, {})
        clock[lane] = clock.get(lane, -1) + 1
        point = _Point(lane=lane, position=clock[lane], known=dict(clock))
        self.items.append(point)
        self.latest[lane] = point
        return point

    def need(self, lane: Lane, points: Iterable[_Point]) -> None:
        """Append the fewest waits after which the lane is behind all these points."""
        clock = self.clocks.setdefault(lane, {})
        missing: dict[Lane, _Point] = {}
        for point in points:
            known = max(clock.get(point.lane, -1), _position(missing.get(point.lane)))
            if known < point.position:
                missing[point.lane] = point
        for point in missing.values():
            others = (other for other in missing.values() if other is not point)
            if any(other.known.get(point.lane, -1) >= point.position for other in others):
                continue
            if point.event < 0:
                point.event = len(self.events)
                self.events.append(point.lane.device)
            self.items.append(Step(op="wait", lane=lane, event=point.event))
        for point in missing.values():
            for other, position in point.known.items():
                clock[other] = max(clock.get(other, -1), position)

    def flatten(self) -> tuple[Step, ...]:
        """The steps, with a record at each point that somebody waits for."""
        steps = []
        for item in self.items:
            if isinstance(item, Step):
                steps.append(item)
            elif item.event >= 0:
                steps.append(Step(op="record", lane=item.lane, event=item.event))
        return tuple(steps)


def compile_program(placement: Placement, spec: ModelSpec, direct: Iterable[int] = ()) -> Program:
    """Compile a placement, which ``check_placement`` has accepted.

    Args:
        placement: The segments.
        spec: The network, for what each lane costs.
        direct: Devices that read the caller's image, and write logits to the host, in place.
    """
    segments = _issue_order(placement)
    in_place = set(direct)
    main = next(_lane(segment) for segment in segments if LOGITS in segment.outputs)
    compiler = _Compiler()
    images: dict[int, _Point] = {}
    reads_image = {segment.device for segment in segments if IMAGE in segment.inputs} - in_place
    if main.device in reads_image:
        compiler.add(Step(op="upload", lane=main, name=IMAGE))
    first = len(compiler.flatten())
    start = images[main.device] = compiler.mark(main)
    ready: dict[tuple[str, int], _Point] = {}
    for segment in segments:
        lane = _lane(segment)
        if IMAGE in segment.inputs and lane.device in reads_image and lane.device not in images:
            compiler.need(lane, [start])
            images[lane.device] = compiler.add(Step(op="upload", lane=lane, name=IMAGE))
        _add_segment(compiler, segment, placement, [start, images.get(lane.device, start)], ready)
    compiler.need(main, compiler.latest.values())
    last = len(compiler.flatten())
    if main.device not in in_place:
        compiler.add(Step(op="download", lane=main, name=LOGITS))
    return Program(
        steps=compiler.flatten(),
        main=main,
        lanes=_by_cost(placement, spec),
        events=tuple(compiler.events),
        first=first,
        last=last,
    )


def _add_segment(
    compiler: _Compiler,
    segment: Segment,
    placement: Placement,
    begin: list[_Point],
    ready: dict[tuple[str, int], _Point],
) -> None:
    """Wait for what the segment reads, run it, and push what it writes to other devices."""
    lane = _lane(segment)
    inputs = [ready[name, lane.device] for name in segment.inputs if name != IMAGE]
    compiler.need(lane, [*inputs, *begin])
    done = compiler.add(Step(op="run", lane=lane, name=segment.name))
    ready.update({(name, lane.device): done for name in segment.outputs})
    for name in segment.outputs:
        readers = {other.device for other in placement.segments if name in other.inputs}
        for target in sorted(readers - {lane.device}):
            step = Step(op="copy", lane=lane, name=name, target=target)
            ready[name, target] = compiler.add(step)


def _issue_order(placement: Placement) -> list[Segment]:
    """Segments so that each comes after its producers, and lane 0 (maybe inline) last if free."""
    waiting = list(placement.segments)
    order: list[Segment] = []
    while waiting:
        heads = {_lane(segment): segment for segment in reversed(waiting)}
        needed = {name for segment in waiting for name in segment.outputs}
        free = [s for s in heads.values() if not needed & set(s.inputs)]
        chosen = min(free, key=lambda s: (s.lane == 0, waiting.index(s)))
        waiting.remove(chosen)
        order.append(chosen)
    return order


def _by_cost(placement: Placement, spec: ModelSpec) -> tuple[Lane, ...]:
    macs = spec.macs(spec.size_multiple, spec.size_multiple)
    cost: dict[Lane, int] = {}
    for segment in placement.segments:
        total = sum(macs[part] for part in segment.parts)
        cost[_lane(segment)] = cost.get(_lane(segment), 0) + total
    return tuple(sorted(cost, key=lambda lane: (-cost[lane], lane)))


def _lane(segment: Segment) -> Lane:
    return Lane(segment.device, segment.lane)


def _position(point: _Point | None) -> int:
    return -1 if point is None else point.position
