"""What the executor asks of a device: streams, events, memory, copies, engines.

Three families implement these protocols: ``host`` (CPU), ``fake`` (a simulator) and CUDA. The
executor knows nothing else of them. A *stream* here is a cuda_stream, an ordered queue of work,
not a branch of the network.

Rules that every implementation keeps:

- **Order.** Work in one stream runs in the order in which it was enqueued. Work in two streams is
  ordered by events only. ``Stream.wait`` refers to the most recent ``record`` of the event at the
  time of the call to ``wait``; an event that was never recorded is not waited for.
- **Errors.** A call may raise at once. An error that appears later stays with the stream: what was
  enqueued behind it is skipped, an event recorded behind it carries it, a stream that waits for
  such an event takes it over, and ``synchronize`` raises it and clears it. A ``DeviceLostError``
  is never cleared: every later call raises it again.
- **Handles.** ``close`` is idempotent and frees only what this object created; a borrowed stream
  stays the caller's. Buffers, streams and events belong to whoever asked the device for them.
- **Contexts.** An implementation that needs a current context (CUDA) pushes it on entry to each
  method and pops it on exit; the caller's context is never changed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol


@dataclass(frozen=True, kw_only=True)
class TimelineEntry:
    """One finished operation. ``simulated`` times come from a model and are no measurement."""

    op: str
    name: str
    device: int
    stream: str
    start_us: float
    end_us: float
    simulated: bool


class Event(Protocol):
    """A point in a stream that other streams, and the caller, can wait for."""

    def synchronize(self) -> None:
        """Block the caller until the most recent record is done; at once if there is none."""

    def close(self) -> None:
        """Free the event. Idempotent."""


class Stream(Protocol):
    """An ordered queue of work on one device."""

    @property
    def device(self) -> int:
        """Ordinal of the device."""

    @property
    def launchable(self) -> bool:
        """Whether graphs of its device may be launched into it. Not so for a foreign context."""

    def record(self, event: Event) -> None:
        """Enqueue: mark ``event`` as reached. The event must be of the same device."""

    def wait(self, event: Event) -> None:
        """Enqueue: hold later work back until ``event``, of any device, is reached."""

    def synchronize(self) -> None:
        """Block the caller until all work is done, then raise what went wrong, if anything."""

    def check(self) -> None:
        """Raise what has gone wrong so far and is known, without waiting."""

    def close(self) -> None:
        """Free the stream unless it is borrowed. Idempotent."""


class Buffer(Protocol):
    """Memory of one device. Its content is undefined until something is written."""

    @property
    def device(self) -> int:
        """Ordinal of the device that owns the memory."""

    @property
    def address(self) -> int:
        """Where the memory starts, in the address space of the device."""

    @property
    def nbytes(self) -> int:
        """Size in bytes."""

    def close(self) -> None:
        """Free the memory. Idempotent. Nothing may still use it."""


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """A float32 tensor at the start of a buffer, C-contiguous."""

    buffer: Buffer
    shape: tuple[int, ...]


class Binding(Protocol):
    """An engine tied to the tensors of one in-flight slot."""

    def set_address(self, name: str, address: int) -> None:
        """Let one tensor start at another address. Only on devices with ``direct`` True."""

    def close(self) -> None:
        """Forget the tensors. Idempotent."""


class Engine(Protocol):
    """What executes one segment on one device."""

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the tensors that it reads."""

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the tensors that it writes."""

    def bind(self, tensors: Mapping[str, Tensor], slot: int) -> Binding:
        """Tie the engine to these tensors, whose shapes include the batch.

        Bindings of one slot never run at the same time and may share what is costly (an execution
        context); bindings of different slots may.

        Owns: the caller keeps the buffers alive until the binding is closed.
        """

    def enqueue(self, binding: Any, stream: Any) -> None:
        """Enqueue one run on a stream of this engine's device. Allocates nothing."""

    def close(self) -> None:
        """Free the engine. Idempotent. All bindings are closed before."""


class Graph(Protocol):
    """Captured work, enqueued again as one launch."""

    def launch(self, stream: Any) -> None:
        """Enqueue it all on a launchable stream of its device. Launches do not overlap."""

    def close(self) -> None:
        """Free it. Idempotent. No launch is in flight."""


class Capture(NamedTuple):
    """What came of a capture: a graph, or the reason (for people) why there is none."""

    graph: Graph | None
    why_not: str = ""


class Device(Protocol):
    """A place where engines run, with its own memory."""

    @property
    def ordinal(self) -> int:
        """Which device of its backend."""

    @property
    def direct(self) -> bool:
        """Whether engines read the caller's memory and write host memory with no copy between."""

    @property
    def simulated(self) -> bool:
        """Whether times reported by this device come from a model."""

    def current(self) -> AbstractContextManager[object]:
        """A ``with`` in which calls on this device cost less; each works without it too."""

    def create_stream(self, lane: int, rank: int = 0) -> Stream:
        """A new stream for this lane. ``rank`` 0 is the most urgent, then 1, and so on."""

    def borrow_stream(self, handle: int) -> Stream:
        """A stream that somebody else owns and keeps alive, by its raw handle."""

    def create_event(self) -> Event:
        """A new event of this device, not recorded yet."""

    def allocate(self, nbytes: int) -> Buffer:
        """New memory.

        Raises:
            OutOfMemoryError: The device has not so much left.
        """

    def allocate_host(self, nbytes: int) -> Buffer:
        """New host memory that copies of this device reach fastest (pinned); ``device`` is -1."""

    def copy(self, target: Buffer, source: Buffer, nbytes: int, stream: Any) -> None:
        """Enqueue a copy. ``stream`` is one of the source's device; the target may be elsewhere."""

    def upload(self, target: Buffer, address: int, nbytes: int, stream: Any) -> None:
        """Enqueue a copy from memory that the caller names by address (host, or this backend's)."""

    def download(self, address: int, source: Buffer, nbytes: int, stream: Any) -> None:
        """Enqueue a copy to memory that the caller names by address (host, or this backend's)."""

    def capture(self, work: Callable[[], None], stream: Any) -> Capture:
        """Turn work on this device into one launch.

        ``work`` enqueues; everything in it forks from ``stream``, joins it again, and uses the same
        addresses each time. A device that must warm up runs it before, for real, and waits for it.

        Returns: The graph, which the caller closes; or why there is none (the device has no such
            thing, or refused this work): the caller then runs ``work`` each time.
        """

    def locate(self, address: int) -> tuple[int | None, bool]:
        """Whose memory is at an address: (ordinal or None, whether it is memory of a device)."""

    def timeline(self) -> tuple[TimelineEntry, ...]:
        """The operations finished lately, oldest first; empty where the device records none."""

    def close(self) -> None:
        """Free the device. Idempotent. Everything made from it is closed before."""
