"""What happened when in a call: overlap, critical path, and what each lane waited for.

Times come from the devices (``Runtime.open(..., trace=True)``). They are matched with the steps of
the program, so that it is known what had to be done before what. While it is traced a runtime uses
no graphs, so gaps are longer than in a call that is not.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from ..errors import BackendError
from ..runtime.device import TimelineEntry
from ..runtime.program import Lane, Program, Step

Kind = Literal["engine", "copy", "host"]


@dataclass(frozen=True, kw_only=True)
class Span:
    """One operation of a call. ``step`` is its index in the program."""

    step: int
    kind: Kind
    name: str
    lane: Lane
    start_us: float
    end_us: float

    @property
    def duration_us(self) -> float:
        """How long it took."""
        return self.end_us - self.start_us


@dataclass(frozen=True, kw_only=True)
class LaneTimes:
    """Where the time of one lane went, from the start of the call to its end.

    ``waiting_us``: something that the next operation needs was not done. ``launching_us``: all was
    done and the operation had not begun. ``done_us``: behind its last operation. ``longest_gap`` is
    the longest of all waits and launches, and the operation that ended it.
    """

    lane: Lane
    engines_us: float
    copies_us: float
    waiting_us: float
    launching_us: float
    done_us: float
    longest_gap: tuple[float, str]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        gap_us, before = self.longest_gap
        return {
            "device": self.lane.device,
            "lane": self.lane.lane,
            "engines_us": self.engines_us,
            "copies_us": self.copies_us,
            "waiting_us": self.waiting_us,
            "launching_us": self.launching_us,
            "done_us": self.done_us,
            "longest_gap": {"us": gap_us, "before": before},
        }


@dataclass(frozen=True, kw_only=True)
class Call:
    """The operations of one call in the order of their start."""

    spans: tuple[Span, ...]
    sources: Mapping[int, tuple[int, ...]]
    lanes: tuple[Lane, ...]

    @cached_property
    def start_us(self) -> float:
        """When its first operation began."""
        return min(span.start_us for span in self.spans)

    @cached_property
    def end_us(self) -> float:
        """When its last operation ended."""
        return max(span.end_us for span in self.spans)

    @property
    def wall_us(self) -> float:
        """From the first begin to the last end."""
        return self.end_us - self.start_us

    @property
    def busy_us(self) -> float:
        """The time of all operations together."""
        return sum(span.duration_us for span in self.spans)

    @property
    def overlap(self) -> float:
        """Busy time in units of the wall time: 1 where everything is done in turn."""
        return self.busy_us / self.wall_us

    @cached_property
    def critical(self) -> tuple[Span, ...]:
        """Back from the end: always what ended last of all that had to be done before."""
        by_step = {span.step: span for span in self.spans}
        path = [max(self.spans, key=lambda span: span.end_us)]
        while before := [by_step[step] for step in self.sources[path[-1].step]]:
            path.append(max(before, key=lambda span: span.end_us))
        return tuple(reversed(path))

    def critical_split(self) -> dict[str, float]:
        """The critical path by what it is made of; together the wall time.

        Clocks of two devices differ by some microseconds: what is negative for that counts as 0.
        """
        path = self.critical
        ends = [self.start_us, *(span.end_us for span in path[:-1])]
        gaps = [max(0.0, span.start_us - end) for span, end in zip(path, ends, strict=True)]
        engines = sum(span.duration_us for span in path if span.kind == "engine")
        copies = sum(span.duration_us for span in path if span.kind != "engine")
        return {"engines_us": engines, "copies_us": copies, "launching_us": sum(gaps)}

    def lane_times(self) -> tuple[LaneTimes, ...]:
        """Each lane's time, in the order of the program's lanes."""
        return tuple(self._lane_times(lane) for lane in self.lanes)

    def _lane_times(self, lane: Lane) -> LaneTimes:
        own = [span for span in self.spans if span.lane == lane]
        ends = {span.step: span.end_us for span in self.spans}
        waiting = launching = 0.0
        longest = (0.0, "")
        free_us = self.start_us
        for span in own:
            ready_us = max([free_us, *(ends[step] for step in self.sources[span.step])])
            ready_us = min(ready_us, span.start_us)
            waiting += ready_us - free_us
            launching += span.start_us - ready_us
            longest = max(longest, (span.start_us - free_us, span.name))
            free_us = span.end_us
        return LaneTimes(
            lane=lane,
            engines_us=sum(span.duration_us for span in own if span.kind == "engine"),
            copies_us=sum(span.duration_us for span in own if span.kind != "engine"),
            waiting_us=waiting,
            launching_us=launching,
            done_us=self.end_us - free_us,
            longest_gap=longest,
        )


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """Calls one after the other. ``simulated`` times come from a model, not from a device."""

    calls: tuple[Call, ...]
    copy_lanes: tuple[Lane, ...]
    simulated: bool

    @property
    def typical(self) -> Call:
        """The call of median wall time."""
        ordered = sorted(self.calls, key=lambda call: call.wall_us)
        return ordered[len(ordered) // 2]

    def to_json(self) -> dict[str, Any]:
        """What is to be known of the typical call, as plain JSON types."""
        call = self.typical
        overlaps = [other.overlap for other in self.calls]
        return {
            "simulated": self.simulated,
            "calls": len(self.calls),
            "wall_us": call.wall_us,
            "busy_us": call.busy_us,
            "overlap": call.overlap,
            "overlap_range": [min(overlaps), max(overlaps)],
            "critical": [_critical_row(span) for span in call.critical],
            "critical_split": call.critical_split(),
            "lanes": [times.to_json() for times in call.lane_times()],
            "copy_lanes": [list(lane) for lane in self.copy_lanes],
        }


def read_timeline(entries: Iterable[TimelineEntry], program: Program, *, calls: int) -> Timeline:
    """Match the latest entries of devices with the steps of a program, walked by one slot.

    Args:
        entries: From ``Runtime.timeline``.
        program: From ``Runtime.program``.
        calls: How many calls to take, from the end; what came before (a canary) is left out.

    Raises:
        BackendError: The devices recorded fewer operations than so many calls have.
    """
    found = tuple(entries)
    work = [(i, step) for i, step in enumerate(program.steps) if step.op not in ("record", "wait")]
    sources = direct_sources(program)
    spans: list[list[Span]] = [[] for _ in range(calls)]
    for lane in program.lanes:
        steps = [(i, step) for i, step in work if step.lane == lane]
        own = [e for e in found if (e.device, e.stream) == (lane.device, f"lane{lane.lane}")]
        own = sorted(own, key=lambda entry: entry.start_us)[-len(steps) * calls :]
        if len(own) < len(steps) * calls:
            raise BackendError(
                f"timeline, device {lane.device} lane {lane.lane}: got {len(own)} operations, "
                f"expected {len(steps)} for each of {calls} calls. Open the runtime with "
                "trace=True, and ask for fewer calls."
            )
        for number, entry in enumerate(own):
            index, step = steps[number % len(steps)]
            spans[number // len(steps)].append(_span(index, step, entry))
    return Timeline(
        calls=tuple(
            Call(
                spans=tuple(sorted(call, key=lambda span: (span.start_us, span.step))),
                sources=sources,
                lanes=program.lanes,
            )
            for call in spans
        ),
        copy_lanes=program.copy_lanes,
        simulated=any(entry.simulated for entry in found),
    )


def direct_sources(program: Program) -> dict[int, tuple[int, ...]]:
    """For each operation those that it had to wait for directly: by its lane and by events."""
    frontier: dict[Lane, frozenset[int]] = {}
    recorded: dict[int, frozenset[int]] = {}
    found: dict[int, tuple[int, ...]] = {}
    for index, step in enumerate(program.steps):
        before = frontier.get(step.lane, frozenset())
        if step.op == "record":
            recorded[step.event] = before
        elif step.op == "wait":
            frontier[step.lane] = before | recorded[step.event]
        else:
            found[index] = tuple(sorted(before))
            frontier[step.lane] = frozenset({index})
    return found


def trace_events(timeline: Timeline) -> Iterator[dict[str, Any]]:
    """Chrome's trace events (Perfetto reads them): a process for each device, a thread for a lane.

    Source: "Trace Event Format", the document that Chrome's tracing and Perfetto refer to.
    """
    origin_us = min(call.start_us for call in timeline.calls)
    lanes = timeline.calls[0].lanes
    how = " (simulated)" if timeline.simulated else ""
    for device in sorted({lane.device for lane in lanes}):
        yield _metadata("process_name", device, 0, f"device {device}{how}")
    for lane in lanes:
        yield _metadata("thread_name", lane.device, lane.lane, lane_text(lane, timeline.copy_lanes))
    for number, call in enumerate(timeline.calls):
        critical = {span.step for span in call.critical}
        for span in call.spans:
            yield {
                "ph": "X",
                "name": span.name,
                "cat": span.kind,
                "pid": span.lane.device,
                "tid": span.lane.lane,
                "ts": span.start_us - origin_us,
                "dur": span.duration_us,
                "args": {"call": number, "critical": span.step in critical},
            }


def lane_text(lane: Lane, copy_lanes: Sequence[Lane]) -> str:
    """The lane's name for people."""
    return f"lane {lane.lane}" + (", copies" if lane in copy_lanes else "")


def _metadata(name: str, pid: int, tid: int, value: str) -> dict[str, Any]:
    return {"ph": "M", "name": name, "pid": pid, "tid": tid, "args": {"name": value}}


def _span(index: int, step: Step, entry: TimelineEntry) -> Span:
    kinds: dict[str, tuple[Kind, str]] = {
        "run": ("engine", step.name),
        "copy": ("copy", f"{step.name} to device {step.target}"),
        "upload": ("host", f"{step.name} in"),
        "download": ("host", f"{step.name} out"),
    }
    kind, name = kinds[step.op]
    return Span(
        step=index,
        kind=kind,
        name=name,
        lane=step.lane,
        start_us=entry.start_us,
        end_us=entry.end_us,
    )


def _critical_row(span: Span) -> dict[str, Any]:
    return {
        "name": span.name,
        "kind": span.kind,
        "device": span.lane.device,
        "lane": span.lane.lane,
        "us": span.duration_us,
    }
