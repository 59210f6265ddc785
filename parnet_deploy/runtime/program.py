"""A placement as a flat list of steps: upload, run, copy, record, wait, download.

Pure data, made once when a runtime opens. The caller's thread walks it from top to bottom and
enqueues; order between lanes comes from record and wait alone. Three rules make it right:

- Whoever reads a tensor that another lane wrote waits for an event recorded behind the write. The
  producer's device pushes copies to other devices: on the producer's own lane, or, where that has
  work which does not depend on the copy, on a copy lane beside it, so that it does not hold up
  the arithmetic. Each lane has one for each device it pushes to, so copies do not wait for others.
- The main lane (the one that computes the logits) is the fork and the join: other lanes begin
  behind its start, and it waits for whatever is not behind it already at its end. So the next walk
  on the same buffers cannot overtake this one. Devices upload the image side by side.
- A wait that is implied by others is left out (vector clocks), so each that remains is needed.

Where the order is free, what has most arithmetic behind it is enqueued first. But on a device that
works in place (``host``), lane 0 runs in the thread of the caller: other lanes' steps come before.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from ..arithmetic import direct_needs, segment_macs, work_behind
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

    ``lanes`` stand in order of urgency: the one with most arithmetic first, copy lanes last.
    ``events`` holds the device of each event. ``steps[first:last]`` is the body: it forks from the
    main lane, joins it again, and sees the same addresses in every call, so a device may replay it
    as a graph.
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

    @property
    def copy_lanes(self) -> tuple[Lane, ...]:
        """The lanes that only copy to other devices, ascending."""
        running = {step.lane for step in self.steps if step.op in ("run", "upload", "download")}
        return tuple(sorted(set(self.lanes) - running))


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

    def flatten(self, end: int | None = None) -> tuple[Step, ...]:
        """The steps up to an item, with a record at each point that somebody waits for."""
        steps = []
        for item in self.items[:end]:
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
    in_place = set(direct)
    segments = _issue_order(placement, spec, in_place)
    main = next(_lane(segment) for segment in segments if LOGITS in segment.outputs)
    compiler = _Compiler()
    images: dict[int, _Point] = {}
    reads_image = {segment.device for segment in segments if IMAGE in segment.inputs} - in_place
    start = images[main.device] = compiler.mark(main)
    body = 0
    if main.device in reads_image:
        images[main.device] = compiler.add(Step(op="upload", lane=main, name=IMAGE))
        body = len(compiler.items) - 1  # the point behind the upload is in it
    ready: dict[tuple[str, int], _Point] = {}
    routes = _copy_lanes(placement)
    for segment in segments:
        lane = _lane(segment)
        if IMAGE in segment.inputs and lane.device in reads_image and lane.device not in images:
            compiler.need(lane, [start])
            images[lane.device] = compiler.add(Step(op="upload", lane=lane, name=IMAGE))
        inputs = [
            images.get(lane.device, start) if name == IMAGE else ready[name, lane.device]
            for name in segment.inputs
        ]
        compiler.need(lane, [*inputs, start])
        done = compiler.add(Step(op="run", lane=lane, name=segment.name))
        ready.update({(name, lane.device): done for name in segment.outputs})
        for name, _, target in _crossings_of(segment, placement):
            route = routes[name, target]
            compiler.need(route, [done])
            copy = Step(op="copy", lane=route, name=name, target=target)
            ready[name, target] = compiler.add(copy)
    compiler.need(main, compiler.latest.values())
    last = len(compiler.flatten())
    if main.device not in in_place:
        compiler.add(Step(op="download", lane=main, name=LOGITS))
    lanes = _by_cost(placement, spec)
    return Program(
        steps=compiler.flatten(),
        main=main,
        lanes=(*lanes, *sorted(set(routes.values()) - set(lanes))),
        events=tuple(compiler.events),
        first=len(compiler.flatten(body)),
        last=last,
    )


def _copy_lanes(placement: Placement) -> dict[tuple[str, int], Lane]:
    """Which lane pushes a tensor to a device: (tensor, device) -> lane.

    The producer's own lane, if all that is left in it must wait for the copy anyway (as its reader
    comes before); else a lane beside it.
    """
    needs = direct_needs(placement)
    taken = {_lane(segment) for segment in placement.segments}
    beside: dict[tuple[Lane, int], Lane] = {}
    found = {}
    for index, segment in enumerate(placement.segments):
        lane = _lane(segment)
        rest = (s for s in placement.segments[index + 1 :] if _lane(s) == lane)
        following = next(rest, None)
        for name, _, target in _crossings_of(segment, placement):
            found[name, target] = lane
            readers = {
                s.name for s in placement.segments if s.device == target and name in s.inputs
            }
            if following is None or readers & _all_needs(following.name, needs):
                continue
            if (lane, target) not in beside:
                number = 1 + max(other.lane for other in taken if other.device == lane.device)
                beside[lane, target] = Lane(lane.device, number)
                taken.add(beside[lane, target])
            found[name, target] = beside[lane, target]
    return found


def _crossings_of(segment: Segment, placement: Placement) -> list[tuple[str, int, int]]:
    """The crossings that start at a segment, in the order of its outputs."""
    own = [crossing for crossing in placement.crossings if crossing[0] in segment.outputs]
    return sorted(own, key=lambda crossing: (segment.outputs.index(crossing[0]), crossing[2]))


def _all_needs(name: str, needs: Mapping[str, Iterable[str]]) -> set[str]:
    """Everything that is done before a segment starts."""
    found: set[str] = set()
    waiting = [name]
    while waiting:
        for before in needs[waiting.pop()]:
            if before not in found:
                found.add(before)
                waiting.append(before)
    return found


def _issue_order(placement: Placement, spec: ModelSpec, in_place: set[int]) -> list[Segment]:
    """Segments so that each comes after its producers; see the module about what is free."""
    behind = work_behind(placement, segment_macs(placement, spec))
    waiting = list(placement.segments)
    order: list[Segment] = []
    while waiting:
        heads = {_lane(segment): segment for segment in reversed(waiting)}
        needed = {name for segment in waiting for name in segment.outputs}
        free = [s for s in heads.values() if not needed & set(s.inputs)]
        chosen = min(
            free,
            key=lambda s: (
                s.device in in_place and s.lane == 0,
                0 if s.device in in_place else -behind[s.name],
                waiting.index(s),
            ),
        )
        waiting.remove(chosen)
        order.append(chosen)
    return order


def _by_cost(placement: Placement, spec: ModelSpec) -> tuple[Lane, ...]:
    macs = segment_macs(placement, spec)
    cost: dict[Lane, int] = {}
    for segment in placement.segments:
        cost[_lane(segment)] = cost.get(_lane(segment), 0) + macs[segment.name]
    return tuple(sorted(cost, key=lambda lane: (-cost[lane], lane)))


def _lane(segment: Segment) -> Lane:
    return Lane(segment.device, segment.lane)


def _position(point: _Point | None) -> int:
    return -1 if point is None else point.position
