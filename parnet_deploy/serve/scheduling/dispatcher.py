"""The decisions of the scheduler: who is let in, who runs next and with whom. No thread, no clock.

Every method is told the time, so each sequence of events has one outcome, which tests can replay.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..protocol.refusal import RefusedError
from .estimate import Estimate
from .ticket import Batch, Size, Ticket
from .waiting import WaitingQueue

STALE_S = 1.0
"""An estimate older than this refuses nobody whom an idle engine could take: it may be over."""

WAKE_SHARE, WAKE_MOST_S = 0.25, 0.025
"""How much earlier than its deadline wants it a batch that waits to grow starts: for timers and
threads, which are late. A share of the time that a request had, up to so many seconds."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """``max_queue``: images that wait at most. ``max_delay_s``: how long a batch may wait to grow.

    ``slots``: batches that run at the same time, each of ``max_batch`` images at most.
    """

    max_batch: int = 1
    slots: int = 1
    max_queue: int = 64
    max_delay_s: float = 0.0


class Dispatcher:
    """Queue and slots of one runtime. Not thread-safe: the scheduler's lock guards it.

    A batch is what waits when a slot becomes free: the first request and those of its image size
    behind it, in order, as long as they fit and nobody whom that delays misses a deadline by it.
    Within a level nobody is overtaken, except by such a companion of somebody before.

    ``wake_s``: when to ``poll``, for a batch that waits to grow; infinite: not needed.
    """

    def __init__(self, model: str, limits: Limits, estimate: Estimate) -> None:
        self.waiting = WaitingQueue()
        self.running: dict[Batch, None] = {}
        self.wake_s = math.inf
        self._max_delay_s = limits.max_delay_s
        self._model, self._limits, self._estimate = model, limits, estimate

    @property
    def idle_slots(self) -> int:
        """Slots that nothing runs in."""
        return self._limits.slots - len(self.running)

    @property
    def may_start(self) -> bool:
        """Whether somebody waits though a slot is idle: for a batch to grow, or to be polled."""
        return bool(self.waiting) and self.idle_slots > 0

    def hurry(self) -> None:
        """From now on no batch waits to grow: nobody comes any more. To be polled after this."""
        self._max_delay_s = 0.0

    def submit(self, ticket: Ticket, now: float) -> Batch | None:
        """Let a request in; the batch to start because of it, if any.

        Raises:
            RefusedError: busy, if the queue is full; late, if it cannot be done by its deadline.
        """
        own_s = self._admit(ticket, now)
        if not self.waiting and self.idle_slots > 0 and not self._max_delay_s:
            return self._start((ticket,), now + own_s)
        self.waiting.put(ticket)
        return self.poll(now)

    def finished(self, batch: Batch, now: float, run_s: float | None) -> Batch | None:
        """A batch is done, in so many seconds if that counts; the one to start in its slot."""
        del self.running[batch]
        if run_s is not None:
            self._estimate.add(batch.size, batch.count, run_s, now)
        return self.poll(now)

    def withdraw(self, ticket: Ticket) -> bool:
        """Take a request out of the queue; false if it is not in there."""
        return self.waiting.remove(ticket)

    def poll(self, now: float) -> Batch | None:
        """The batch to start now, if any."""
        self.wake_s = math.inf
        if not self.may_start:
            return None
        tickets, run_s = self._gather(now)
        first = tickets[0]
        count = sum(ticket.count for ticket in tickets)
        if self._max_delay_s and count < self._limits.max_batch:
            last_s = min(map(_last_start_s, tickets)) - run_s
            start_s = min(first.queued_s + self._max_delay_s, last_s)
            if now < start_s:
                self.wake_s = start_s
                return None
        for ticket in tickets:
            self.waiting.remove(ticket)
        return self._start(tuple(tickets), now + run_s)

    def _start(self, tickets: tuple[Ticket, ...], expected_s: float) -> Batch:
        batch = Batch(tickets, expected_s)
        self.running[batch] = None
        return batch

    def free_in_s(self, now: float) -> float:
        """When a slot should become free; 0 if one is."""
        if self.idle_slots > 0:
            return 0.0
        return max(0.0, min(batch.expected_s for batch in self.running) - now)

    def _gather(self, now: float) -> tuple[list[Ticket], float]:
        """The first request and those that may join it, and how long they should take."""
        first = self.waiting.first()
        size, count, most = first.size, first.count, self._limits.max_batch
        tickets, run_s = [first], self._estimate.run_s(size, count)
        limit_s = first.deadline_s  # when the batch must be done, for all whom it delays
        overtaken_s = 0.0  # time of those that are overtaken
        left = self.waiting.images_of(size) - count
        for ticket in self.waiting if left and count < most else ():
            if ticket is first:
                continue
            if ticket.size != size:
                overtaken_s += self._estimate.run_s(ticket.size, ticket.count)
                limit_s = min(limit_s, ticket.deadline_s - overtaken_s)
                continue
            grown = count + ticket.count
            longer_s = self._estimate.run_s(size, grown) if grown <= most else math.inf
            limit_s = min(limit_s, ticket.deadline_s)
            if now + longer_s > limit_s:
                break  # and nobody behind may overtake this one
            tickets.append(ticket)
            count, run_s, left = grown, longer_s, left - ticket.count
            if not left or count == most:
                break
        return tickets, run_s

    def _admit(self, ticket: Ticket, now: float) -> float:
        """How long it takes in the engine, if it may come in."""
        left_s = ticket.deadline_s - now
        if left_s <= 0:
            raise late(self._model, left_s, None)
        own_s = self._estimate.run_s(ticket.size, ticket.count)
        if not self.waiting and self.idle_slots > 0:
            if own_s > left_s and now - self._estimate.measured_s < STALE_S:
                raise late(self._model, left_s, own_s)
            return own_s
        self._check_room(ticket, now, own_s)
        needed_s = self._needed_s(ticket, now, own_s)
        if needed_s > left_s:
            again_s = needed_s - left_s if own_s < left_s else None
            raise late(self._model, left_s, needed_s, again_s)
        return own_s

    def _check_room(self, ticket: Ticket, now: float, own_s: float) -> None:
        most, images = self._limits.max_queue, self.waiting.images
        if images + ticket.count <= most or (not images and most):
            return
        raise RefusedError(
            "busy",
            f"model {self._model}: the queue is full: {images} of --max-queue {most} images wait, "
            f"no room for {ticket.count} more. Try again later.",
            retry_after_s=max(self.free_in_s(now), own_s),
        )

    def _needed_s(self, ticket: Ticket, now: float, own_s: float) -> float:
        """From now to its answer, if all goes as it did lately."""
        images = self.waiting.images_ahead(ticket.level)
        images[ticket.size] += ticket.count
        work_s = sum(self._drain_s(size, count) for size, count in images.items())
        return self.free_in_s(now) + max(own_s, work_s / self._limits.slots)

    def _drain_s(self, size: Size, images: int) -> float:
        return self._estimate.drain_s(size, images, self._limits.max_batch)


def _last_start_s(ticket: Ticket) -> float:
    """When a run that takes no time must start at the latest to be in time for sure."""
    margin_s = min(WAKE_SHARE * (ticket.deadline_s - ticket.queued_s), WAKE_MOST_S)
    return ticket.deadline_s - margin_s


def late(
    model: str, left_s: float, needed_s: float | None, retry_after_s: float | None = None
) -> RefusedError:
    """The refusal of a request whose deadline passes before its answer can be there."""
    if needed_s is None:
        return RefusedError(
            "late",
            f"model {model}: the deadline passed before the answer was there. Try again, or give "
            "it more time.",
            retry_after_s=retry_after_s,
        )
    return RefusedError(
        "late",
        f"model {model}: got {left_s * 1e3:.1f} ms until the deadline, expected at least "
        f"{needed_s * 1e3:.1f} ms. Try again later, or give it more time.",
        retry_after_s=retry_after_s,
    )
