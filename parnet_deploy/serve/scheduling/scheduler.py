"""The scheduler: from a request's images to its logits, on one event loop and worker threads.

``Dispatcher`` decides; this carries it out. A worker that is done takes the next batch itself,
under the lock, so that an engine never waits for the event loop while requests wait for it.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
from collections.abc import Callable
from typing import Any

from ...errors import DeviceLostError, InputError, ParnetDeployError, TimedOutError
from ..clock import Clock, Timer
from ..protocol.refusal import RefusedError
from .dispatcher import Dispatcher, Limits, late
from .estimate import Estimate
from .ticket import Answer, Batch, Images, Outcome, Ticket
from .workers import BatchRunner, Network, Workers

_LOG = logging.getLogger(__name__)


class Scheduler:
    """Runs requests on one runtime. Lives on one event loop and never blocks it.

    Args:
        model: For messages.
        run: From images to logits; called in worker threads, ``limits.slots`` at a time.
        limits: How many wait, how many run, and how large a batch is.
        clock: Where deadlines are counted.
        on_run: Told on the event loop of each engine run that went well: images, seconds.

    ``lost``: why it answers nobody any more, if so: its device is lost, or its engines are wrong.

    Owns: its threads, until ``close``.
    """

    def __init__(
        self,
        *,
        model: str,
        run: Network,
        limits: Limits,
        clock: Clock,
        on_run: Callable[[int, float], None] = lambda images, run_s: None,
    ) -> None:
        self.lost: ParnetDeployError | None = None
        self._model, self._run, self._clock, self._on_run = model, run, clock, on_run
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._estimate = Estimate()
        self._dispatcher = Dispatcher(model, limits, self._estimate)
        self._tickets: dict[Ticket, None] = {}  # not answered yet
        self._wake: Timer | None = None
        self._closed: RefusedError | None = None
        self._workers = Workers(limits.slots, self._make_worker)

    @property
    def waiting_images(self) -> int:
        """Images in the queue."""
        return self._dispatcher.waiting.images

    @property
    def running_batches(self) -> int:
        """Batches in the engine."""
        return len(self._dispatcher.running)

    def seed(self, height: int, width: int, count: int, run_s: float) -> None:
        """Tell how long a batch took that did not come through here, such as a warm-up."""
        with self._lock:
            self._estimate.add((height, width), count, run_s, self._clock.now())

    async def answer(self, images: Images, *, level: int, deadline_s: float) -> Answer:
        """Compute logits. Cancelling the call takes the request out of the queue.

        Args:
            images: Of an accepted shape; not to be changed before the answer is there.
            level: 1 runs first.
            deadline_s: When the answer must be there, on the clock.

        Raises:
            RefusedError: busy, late, not-ready (the device is lost, the engine hangs or is wrong),
                failed (the engine).
        """
        if self.lost is not None:
            raise self._lost_refusal()
        if self._closed is not None:
            raise self._closed
        now = self._clock.now()
        ticket = Ticket(images, level=level, deadline_s=deadline_s, queued_s=now)
        with self._lock:
            batch = self._dispatcher.submit(ticket, now)
        if batch is not None:
            self._workers.start(batch)
        if self._dispatcher.may_start:
            self._poll()
        answer: asyncio.Future[Answer] = self._loop.create_future()
        ticket.answer = answer
        ticket.timer = self._clock.call_at(deadline_s, self._refuse, ticket, None)
        self._tickets[ticket] = None
        try:
            return await answer
        finally:
            if not ticket.answered:  # cancelled
                self._leave(ticket)

    def give_up(self, error: ParnetDeployError) -> None:
        """The engines are of no use: refuse everything that is not answered and whatever comes."""
        if self.lost is None:
            _LOG.error("model %s: %s", self._model, error)
        self.lost = error
        for ticket in list(self._tickets):
            self._refuse(ticket, self._lost_refusal())

    def hurry(self) -> None:
        """Nobody comes any more: start what waits for others to share its batch."""
        with self._lock:
            self._dispatcher.hurry()
        self._poll()

    def refuse_all(self, error: RefusedError) -> None:
        """Answer everything that is not answered yet, and whatever still comes, with a refusal."""
        self._closed = error
        for ticket in list(self._tickets):
            self._refuse(ticket, error)

    async def close(self, wait_s: float) -> bool:
        """End the threads, once what they run is done; false if one still runs after a while.

        Everything must have been answered: see ``refuse_all``.
        """
        if self._wake is not None:
            self._wake.cancel()
        return await asyncio.to_thread(self._workers.stop, wait_s)

    def _make_worker(self) -> Callable[[Batch], None]:
        runner = BatchRunner(self._run)
        now = self._clock.now

        def work(batch: Batch | None) -> None:
            while batch is not None:
                start_s = now()
                outcome = runner.execute(batch)
                run_s = now() - start_s
                failed = any(isinstance(item, Exception) for item in outcome)
                with self._lock:
                    following = self._dispatcher.finished(
                        batch, start_s + run_s, None if failed else run_s
                    )
                self._tell(batch, outcome, start_s, run_s)
                batch = following

        return work

    def _tell(self, *done: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(self._settle, *done)
        except RuntimeError:  # the loop is closed: nobody waits any more
            _LOG.debug("a batch ended after its event loop")

    def _settle(self, batch: Batch, outcome: Outcome, start_s: float, run_s: float) -> None:
        """Hand out the answers of a batch."""
        failed = False
        for ticket, item in zip(batch.tickets, outcome, strict=True):
            if isinstance(item, Exception):
                failed = True
                self._refuse(ticket, self._refusal(item))
            elif not ticket.answered:
                self._leave(ticket)
                assert ticket.answer is not None
                if not ticket.answer.done():
                    answer = Answer(
                        logits=item,
                        queue_s=max(0.0, start_s - ticket.queued_s),
                        infer_s=run_s,
                        batch=batch.count,
                    )
                    ticket.answer.set_result(answer)
        if not failed:
            self._on_run(batch.count, run_s)
        if self._dispatcher.may_start:
            self._poll()

    def _refuse(self, ticket: Ticket, error: RefusedError | None) -> None:
        """Answer with a refusal; None: the deadline has passed."""
        if ticket.answered:
            return
        self._leave(ticket)
        if ticket.answer is not None and not ticket.answer.done():
            ticket.answer.set_exception(error or late(self._model, 0.0, None))
            ticket.answer.exception()  # seen: nobody need be there to take it

    def _leave(self, ticket: Ticket) -> None:
        """Nothing is owed to this ticket any more; if it waits, it leaves the queue."""
        ticket.answered = True
        self._tickets.pop(ticket, None)
        if ticket.timer is not None:
            ticket.timer.cancel()
        with self._lock:
            self._dispatcher.withdraw(ticket)

    def _poll(self) -> None:
        """Start what can be started; wake up for what waits to grow."""
        while True:
            with self._lock:
                batch = self._dispatcher.poll(self._clock.now())
                wake_s = self._dispatcher.wake_s
            if batch is None:
                break
            self._workers.start(batch)
        if wake_s < math.inf:
            self._wake_at(wake_s)

    def _wake_at(self, wake_s: float) -> None:
        if self._wake is not None:
            self._wake.cancel()
        self._wake = self._clock.call_at(wake_s, self._poll)

    def _refusal(self, error: Exception) -> RefusedError:
        """What the client is told; the log is told everything."""
        if isinstance(error, RefusedError):
            return error
        if isinstance(error, InputError):
            return RefusedError("invalid", f"model {self._model}: {error}")
        if isinstance(error, DeviceLostError):
            if self.lost is None:
                _LOG.error("model %s: %s", self._model, error)
            self.lost = error
            return self._lost_refusal()
        if isinstance(error, TimedOutError):
            _LOG.error("model %s: %s", self._model, error)
            return RefusedError(
                "not-ready",
                f"model {self._model}: its engine did not come back in time, expected logits. Ask "
                "another server.",
            )
        _LOG.error("model %s: a run failed: %s", self._model, error, exc_info=error)
        return RefusedError(
            "failed",
            f"model {self._model}: the engine failed, expected logits. Try again; the log of the "
            "server says why.",
        )

    def _lost_refusal(self) -> RefusedError:
        got, expected = "its engines give wrong logits", "those of the build"
        if isinstance(self.lost, DeviceLostError):
            got, expected = "its device is lost", "one that works"
        return RefusedError(
            "not-ready",
            f"model {self._model}: {got}, expected {expected}. Ask another server; this one must "
            "open the model again.",
        )
