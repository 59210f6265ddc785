"""The threads that run batches, and what one of them does with a batch."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from queue import SimpleQueue

import numpy as np

from ...errors import DeviceLostError, TimedOutError
from .ticket import Batch, Images, Logits, Outcome, Ticket

Network = Callable[[Images], Logits]


class BatchRunner:
    """Runs batches in one thread. Images are copied once, where they must be, into its own memory.

    A request that is alone and whose images lie as the engine wants them is run in place.
    """

    def __init__(self, run: Network) -> None:
        self._run = run
        self._memory = np.empty(0, dtype=np.float32)

    def execute(self, batch: Batch) -> Outcome:
        """The logits of each ticket, or what went wrong for it.

        If a batch of several fails, each is run again alone: one request must not spoil others.
        """
        tickets = batch.tickets
        try:
            logits = self._run(self._gather(tickets))
        except Exception as error:
            if len(tickets) == 1 or isinstance(error, DeviceLostError | TimedOutError):
                return [error] * len(tickets)
            return [self._alone(ticket, error) for ticket in tickets]
        if len(tickets) == 1:
            return [logits]
        ends = np.cumsum([ticket.count for ticket in tickets])[:-1]
        return list(np.split(logits, ends))

    def _alone(self, ticket: Ticket, error: Exception) -> Logits | Exception:
        if ticket.answered:
            return error
        try:
            return self._run(self._gather((ticket,)))
        except Exception as own:
            return own

    def _gather(self, tickets: tuple[Ticket, ...]) -> Images:
        """The images of all tickets, one after the other, C-contiguous and aligned."""
        first = tickets[0].images
        if len(tickets) == 1 and first.flags.c_contiguous and first.flags.aligned:
            return first
        count = sum(ticket.count for ticket in tickets)
        shape = (count, *first.shape[1:])
        size = int(np.prod(shape))
        if self._memory.size < size:
            self._memory = np.empty(size, dtype=np.float32)
        images = self._memory[:size].reshape(shape)
        at = 0
        for ticket in tickets:
            images[at : at + ticket.count] = ticket.images
            at += ticket.count
        return images


class Workers:
    """One thread for each slot, fed by one queue.

    Args:
        count: How many.
        work: Makes what a thread does with a batch; called once in each thread.

    Owns: its threads, until ``stop``. They do not keep the process alive.
    """

    def __init__(self, count: int, work: Callable[[], Callable[[Batch], None]]) -> None:
        self._inbox: SimpleQueue[Batch | None] = SimpleQueue()
        self._work = work
        self._threads = [
            threading.Thread(target=self._serve, name=f"parnet-serve-{index}", daemon=True)
            for index in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def start(self, batch: Batch) -> None:
        """Hand a batch to whichever thread is free."""
        self._inbox.put(batch)

    def stop(self, wait_s: float) -> bool:
        """Let every thread end behind its work; false if one has not after so many seconds."""
        for _ in self._threads:
            self._inbox.put(None)
        end_s = time.monotonic() + wait_s
        for thread in self._threads:
            thread.join(max(0.0, end_s - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _serve(self) -> None:
        work = self._work()
        while True:
            batch = self._inbox.get()
            if batch is None:
                return
            work(batch)
            del batch  # or its images would be kept until the next one comes
