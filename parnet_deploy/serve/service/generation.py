"""``Generation``: one deployment in service, from its opening until it owes nobody an answer."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..clock import Clock
from ..model.decoders import warm_up_decoders
from ..model.served_model import ServedModel
from ..protocol.refusal import RefusedError
from ..scheduling.dispatcher import Limits
from ..scheduling.scheduler import Scheduler
from .options import ServiceOptions

ENGINE_GRACE_S = 5.0
"""How long a run that nobody waits for any more may still take when its model is closed."""

_LOG = logging.getLogger(__name__)


@dataclass(eq=False)
class Generation:
    """One deployment in service. ``requests`` are those that it still owes an answer."""

    model: ServedModel
    scheduler: Scheduler
    requests: int = 0
    idle: asyncio.Event | None = None

    def enter(self) -> None:
        """A request came."""
        self.requests += 1

    def leave(self) -> None:
        """A request was answered."""
        self.requests -= 1
        if not self.requests and self.idle is not None:
            self.idle.set()

    async def retire(self, clock: Clock, cap_s: float, refusal: RefusedError) -> None:
        """Answer what is owed, for so long at most, refuse the rest, and close the engines."""
        self.idle = asyncio.Event()
        self.scheduler.hurry()
        if not self.requests:
            self.idle.set()
        timer = clock.call_at(clock.now() + cap_s, self.idle.set)
        await self.idle.wait()
        timer.cancel()
        self.scheduler.refuse_all(refusal)
        if await self.scheduler.close(ENGINE_GRACE_S):
            await asyncio.to_thread(self.model.close)
        else:
            _LOG.error(
                "model %s: its engine does not come back; it is left behind", self.model.name
            )


async def open_generation(
    open_model: Callable[[], ServedModel],
    options: ServiceOptions,
    *,
    clock: Clock,
    on_run: Callable[[int, float], None],
) -> Generation:
    """Open a deployment in a thread, run it once, and start its scheduler.

    Should the call be cancelled, what is being opened is closed as soon as it is open.

    Raises:
        ParnetDeployError: See ``ServedModel.open``.
    """
    opening = asyncio.ensure_future(asyncio.to_thread(_open_warm, open_model))
    try:
        model, run_s = await asyncio.shield(opening)
    except asyncio.CancelledError:
        opening.add_done_callback(_close_unwanted)
        raise
    limits = Limits(
        max_batch=model.signature.max_batch,
        slots=model.options.slots,
        max_queue=options.max_queue,
        max_delay_s=options.max_delay_ms / 1e3,
    )
    scheduler = Scheduler(
        model=model.name, run=model.run, limits=limits, clock=clock, on_run=on_run
    )
    scheduler.seed(*model.signature.size.high, 1, run_s)
    return Generation(model, scheduler)


def _open_warm(open_model: Callable[[], ServedModel]) -> tuple[ServedModel, float]:
    """A model, and the seconds of one run at its largest size, once everything for it is there."""
    model = open_model()
    try:
        signature = model.signature
        if signature.preprocessing is not None:
            warm_up_decoders(signature.preprocessing)
        images = np.zeros((1, signature.spec.in_channels, *signature.size.high), np.float32)
        model.run(images)
        start_s = time.perf_counter()
        model.run(images)
        return model, time.perf_counter() - start_s
    except BaseException:
        model.close()
        raise


def _close_unwanted(opening: asyncio.Future[tuple[ServedModel, float]]) -> None:
    if opening.cancelled() or opening.exception() is not None:
        return
    model, _ = opening.result()
    asyncio.get_running_loop().run_in_executor(None, model.close)
