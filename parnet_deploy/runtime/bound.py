"""A program prepared for one shape: each step a call without arguments, and graphs where they work.

There are two lists of calls, for there are two kinds of caller. ``staged`` reads the image from the
slot's own pinned memory and leaves the logits there: every address is the same in each call, so
that on one device all of it becomes one graph. ``free`` reads and writes where the caller says; of
it only the body, which sees the same addresses in each call, can be a graph.

On several devices each lane replays what it runs between two events as a graph of its own; copies
between devices, and the events that order them, stay calls (a copy between devices cannot be
captured, and an event from outside a graph cannot be waited for in it).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial

from .device import Binding, Device, Graph, Stream
from .finite import FiniteCheck
from .program import Lane, Program, Step

Call = Callable[[], object]

MODES = ("graph", "graphs", "eager")
"""One launch; one for each stretch of a lane; none. From the best to the worst."""

Mode = tuple[str, str]
"""One of ``MODES``, and what kept it from being better."""


@dataclass(frozen=True, kw_only=True)
class Bound:
    """Ready to run. ``images`` read the caller's memory in place (the CPU).

    ``body`` is one graph of everything between the upload and the download, if there is one.
    ``mode`` is the worse one of the two lists. ``finite`` looks at the logits, if that is wanted.

    Owns: bindings and graphs, freed by ``close``.
    """

    staged: tuple[Call, ...]
    free: tuple[Call, ...]
    body: Graph | None
    images: tuple[Binding, ...]
    logits_bytes: int
    image_bytes: int
    mode: Mode
    finite: FiniteCheck | None
    resources: ExitStack

    def close(self) -> None:
        """Free the graphs, then the bindings. Idempotent; nothing is in flight."""
        self.resources.close()


def worst_mode(*modes: Mode) -> Mode:
    """The one to report of several: a fallback is never silent."""
    return max(modes, key=lambda mode: (MODES.index(mode[0]), mode[1]))


@dataclass(frozen=True, kw_only=True)
class Graphs:
    """Calls with graphs in them. ``body`` as in ``Bound``."""

    calls: tuple[Call, ...]
    mode: str
    why_not: str = ""
    body: Graph | None = None


@dataclass(kw_only=True)
class Capturer:
    """Turns calls of a program into graphs, as far as the devices let it."""

    program: Program
    devices: dict[int, Device]
    streams: dict[Lane, Stream]
    resources: ExitStack
    refusals: dict[int, str] = field(default_factory=dict)

    def capture(self, calls: Sequence[Call], fixed: Callable[[Step], bool]) -> Graphs:
        """Replace what can be replayed.

        Args:
            calls: One for each step of the program.
            fixed: Whether a step sees the same addresses in each call.
        """
        if len({lane.device for lane in self.program.lanes}) == 1:
            return self._capture_stretch(calls, fixed)
        return self._capture_lanes(calls, fixed)

    def _capture_stretch(self, calls: Sequence[Call], fixed: Callable[[Step], bool]) -> Graphs:
        """All of the program on its one device, or all of it but what is not fixed at its ends."""
        steps, main = self.program.steps, self.program.main
        first, last = self.program.first, self.program.last
        if all(map(fixed, steps)):
            first, last = 0, len(steps)
        graph = self._graph(main, calls[first:last])
        if graph is None:
            return Graphs(calls=tuple(calls), mode="eager", why_not=self._why_not())
        launch = partial(graph.launch, self.streams[main])
        return Graphs(calls=(*calls[:first], launch, *calls[last:]), mode="graph", body=graph)

    def _capture_lanes(self, calls: Sequence[Call], fixed: Callable[[Step], bool]) -> Graphs:
        """A graph for each stretch of a lane that no event and no copy interrupts.

        A stretch may be launched where its first step stood: what lies between its steps belongs to
        other lanes, and no event connects them in there.
        """
        replaced: dict[int, Call | None] = dict(enumerate(calls))
        count = 0
        for stretch in lane_stretches(self.program.steps, fixed):
            lane = self.program.steps[stretch[0]].lane
            graph = self._graph(lane, [calls[index] for index in stretch])
            if graph is not None:
                count += 1
                replaced.update(dict.fromkeys(stretch, None))
                replaced[stretch[0]] = partial(graph.launch, self.streams[lane])
        kept = tuple(call for call in replaced.values() if call is not None)
        return Graphs(calls=kept, mode="graphs" if count else "eager", why_not=self._why_not())

    def _graph(self, lane: Lane, calls: Iterable[Call]) -> Graph | None:
        work = tuple(calls)

        def enqueue() -> None:
            for call in work:
                call()

        graph, why_not = self.devices[lane.device].capture(enqueue, self.streams[lane])
        if graph is None:
            self.refusals[lane.device] = why_not
        else:
            self.resources.callback(graph.close)
        return graph

    def _why_not(self) -> str:
        if len(set(self.refusals.values())) == 1:
            return next(iter(self.refusals.values()))
        return "; ".join(f"device {device}: {why}" for device, why in self.refusals.items())


def lane_stretches(steps: Sequence[Step], fixed: Callable[[Step], bool]) -> list[list[int]]:
    """Indices of fixed steps that follow each other in a lane and run at least one engine."""
    stretches: list[list[int]] = []
    current: dict[Lane, list[int]] = {}
    for index, step in enumerate(steps):
        if step.op in ("run", "upload", "download") and fixed(step):
            if step.lane not in current:
                current[step.lane] = []
                stretches.append(current[step.lane])
            current[step.lane].append(index)
        else:
            current.pop(step.lane, None)
    return [stretch for stretch in stretches if any(steps[i].op == "run" for i in stretch)]
