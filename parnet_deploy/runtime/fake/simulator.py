"""Discrete events in virtual time: what streams and events of simulated devices do, and when.

One thread, no clock. To enqueue only appends to a queue; queues are worked off when somebody
synchronises, up to the moment that is waited for: what started before it and ends after it is still
in flight. Where the order of two operations is not fixed by a stream or an event, a seeded random
number decides. Undefined content is NaN, so an order that was left to chance cannot look right:

- memory is NaN when it is allocated, and while an operation is writing it;
- an operation reads when it starts and writes when it ends; if what it read was written to in
  between, or somebody else wrote where it writes, then its output is NaN.

All times are simulated. They follow from made-up rates and are never a measurement.
"""

from __future__ import annotations

import heapq
import random
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count, product
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray

from ...errors import BackendError, DeviceLostError, ExecutionError
from ..device import TimelineEntry
from .options import FaultPlan

_TIMELINE_LENGTH = 4096


class Memory:
    """Memory of one simulated device. ``version`` counts the beginnings and ends of writes."""

    def __init__(self, device: int, nbytes: int) -> None:
        self.device = device
        self.data: NDArray[np.float32] = np.full(-(-nbytes // 4), np.nan, dtype=np.float32)
        self.version = 0
        self.freed = False

    def spoil(self) -> None:
        """Make the content undefined."""
        self.version += 1
        self.data[:] = np.nan


@dataclass(frozen=True, kw_only=True)
class Work:
    """An operation. ``start`` reads and computes; what it returns writes the result."""

    op: str
    name: str
    duration_us: float
    reads: tuple[Memory, ...]
    writes: tuple[Memory, ...]
    start: Callable[[], Callable[[], None]]
    target: int | None = None  # a second device on which the operation may touch memory
    engine_device: int | None = None  # where the engine is, if not where the stream is


@dataclass
class Mark:
    """One record of an event."""

    reached: bool = False
    error: BackendError | None = None


@dataclass
class Record:
    """In a queue: reach the mark."""

    mark: Mark


@dataclass
class Wait:
    """In a queue: hold until the mark is reached."""

    mark: Mark


@dataclass(eq=False)
class Queue:
    """One stream: what is enqueued, whether something is running, what went wrong."""

    device: int
    label: str
    items: deque[Work | Record | Wait] = field(default_factory=deque)
    busy: bool = False
    error: BackendError | None = None

    @property
    def idle(self) -> bool:
        """Whether nothing is left to do."""
        return not self.items and not self.busy


class Simulator:
    """The machine: all queues of all devices, and the virtual time. Thread-safe (one lock)."""

    def __init__(self, *, seed: int, jitter_us: float, faults: FaultPlan) -> None:
        self.now_us = 0.0
        self.lock = threading.RLock()
        self.entries: deque[TimelineEntry] = deque(maxlen=_TIMELINE_LENGTH)
        self.faults = faults
        self.memories: WeakValueDictionary[int, Memory] = WeakValueDictionary()  # by address
        self._jitter_us = jitter_us
        self._random = random.Random(seed)
        self._order = count()
        self._queues: list[Queue] = []
        self._running: list[tuple[float, int, Callable[[], None]]] = []
        self._lost: dict[int, str] = {}
        self._begun: dict[int, int] = {}
        self._failed: set[str] = set()

    def add_queue(self, queue: Queue) -> None:
        """Let the machine know a new stream."""
        with self.lock:
            self._queues.append(queue)

    def remove_queue(self, queue: Queue) -> None:
        """Forget a stream, after its work is done."""
        with self.lock:
            self._advance(lambda: queue.idle)
            if queue in self._queues:
                self._queues.remove(queue)

    def put(self, queue: Queue, item: Work | Record | Wait) -> None:
        """Enqueue."""
        with self.lock:
            self.check(queue.device)
            queue.items.append(item)

    def check(self, device: int) -> None:
        """Refuse a lost device.

        Raises:
            DeviceLostError: Every time.
        """
        if device in self._lost:
            raise DeviceLostError(self._lost[device], device)

    def synchronize(self, queue: Queue) -> None:
        """Work until the queue is empty, then raise what went wrong in it."""
        with self.lock:
            self._advance(lambda: queue.idle)
            error, queue.error = queue.error, None
            self.check(queue.device)
            if error is not None:
                raise error

    def reach(self, mark: Mark) -> None:
        """Work until the mark is reached."""
        with self.lock:
            self._advance(lambda: mark.reached)

    def _advance(self, done: Callable[[], bool]) -> None:
        while True:
            self._start_ready()
            if done():
                return
            if not self._running:
                raise RuntimeError("simulator: a stream waits for what nobody will do")
            self.now_us, _, finish = heapq.heappop(self._running)
            finish()

    def _start_ready(self) -> None:
        """Start whatever can start now, in random order."""
        moved = True
        while moved:
            moved = False
            ready = [queue for queue in self._queues if queue.items and not queue.busy]
            self._random.shuffle(ready)
            for queue in ready:
                moved |= self._step(queue)

    def _step(self, queue: Queue) -> bool:
        """Take the first item of an idle queue, if it can be taken now."""
        item = queue.items[0]
        if isinstance(item, Wait):
            if not item.mark.reached:
                return False
            queue.error = queue.error or item.mark.error
        if queue.device in self._lost:
            queue.error = queue.error or DeviceLostError(self._lost[queue.device], queue.device)
        queue.items.popleft()
        if isinstance(item, Record):
            item.mark.reached, item.mark.error = True, queue.error
        elif isinstance(item, Work) and queue.error is None:
            try:
                self._start(queue, item)
            except BackendError as error:
                queue.error = error
        return True

    def _start(self, queue: Queue, work: Work) -> None:
        self._check_device(queue.device)
        self._check_memory(queue, work)
        if work.name in self.faults.fail_once - self._failed and work.op == "run":
            self._failed.add(work.name)
            raise ExecutionError(f"segment {work.name}: the engine failed (injected). Try again.")
        try:
            write = work.start()
        except BackendError:
            raise
        except Exception as error:  # a kernel is anybody's code
            raise ExecutionError(f"{work.op} {work.name}: {error!r}.") from error
        for memory in work.writes:
            memory.spoil()
        versions = [memory.version for memory in (*work.reads, *work.writes)]
        start_us, queue.busy = self.now_us, True

        def finish() -> None:
            queue.busy = False
            if versions == [memory.version for memory in (*work.reads, *work.writes)]:
                write()
                for memory in work.writes:
                    memory.version += 1
            else:
                for memory in work.writes:
                    memory.spoil()
            self.entries.append(
                TimelineEntry(
                    op=work.op,
                    name=work.name,
                    device=queue.device,
                    stream=queue.label,
                    start_us=start_us,
                    end_us=self.now_us,
                    simulated=True,
                )
            )

        end_us = self.now_us + work.duration_us + self._delay_us(work)
        heapq.heappush(self._running, (end_us, next(self._order), finish))

    def _delay_us(self, work: Work) -> float:
        """Mostly short, sometimes a hundred times longer: long enough to overtake anything."""
        delay = self._random.random() * self._jitter_us
        if self._random.random() < 0.25:
            delay *= 100.0
        return delay + (self.faults.slow_us.get(work.name, 0.0) if work.op == "run" else 0.0)

    def _check_device(self, device: int) -> None:
        """Count an operation, and lose the device if it was its last."""
        self._begun[device] = self._begun.get(device, 0) + 1
        if self._begun[device] > self.faults.lose_device.get(device, self._begun[device]):
            self._lose(device, "it was lost (injected)")
        self.check(device)

    def _check_memory(self, queue: Queue, work: Work) -> None:
        """Lose the device if the operation touches memory that it cannot reach, like CUDA does."""
        if work.engine_device not in (None, queue.device):
            self._lose(queue.device, f"{work.name} is an engine of device {work.engine_device}")
        for memory in (*work.reads, *work.writes):
            if memory.freed:
                self._lose(queue.device, f"{work.name} touched memory that was freed")
            elif memory.device not in (queue.device, work.target):
                self._lose(queue.device, f"{work.name} touched memory of device {memory.device}")
        for source, target in product(work.reads, work.writes):
            if (source.device, target.device) in self.faults.no_route:
                self._lose(queue.device, f"no route to device {target.device} for {work.name}")
        self.check(queue.device)

    def _lose(self, device: int, why: str) -> None:
        self._lost.setdefault(
            device,
            f"device {device}: {why}. Open the runtime again on a device that works.",
        )
