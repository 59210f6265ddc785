"""``Host``: a name that clients ask for, and the deployments that answer to it in turn."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from ...errors import CheckFailedError, DeviceLostError, ParnetDeployError
from ..clock import Clock
from ..model.decoders import Decoders
from ..model.documents import DEFAULT_PRIORITY, PRIORITY_LEVELS, model_config, model_metadata
from ..model.options import ModelOptions
from ..model.outputs import make_output
from ..model.served_model import ServedModel
from ..model.signature import VERSION
from ..protocol.contract import Arrival, Document
from ..protocol.refusal import DRAINING_RETRY_S, RefusedError
from ..protocol.request import InferRequest, InferResponse, Timings
from .generation import Generation, open_generation
from .metrics import Metrics
from .options import ServiceOptions
from .proving import Proving
from .statistics import ModelStatistics

ROWS_ON_LOOP = 4
"""Rows of logits that are sorted on the event loop; more of them, in a thread."""

_LOG = logging.getLogger(__name__)

Opener = Callable[[ModelOptions], ServedModel]


class Host:
    """One served name. Lives on one event loop.

    Owns: the deployments that it opened, until ``close``.
    """

    def __init__(
        self,
        model: ModelOptions,
        options: ServiceOptions,
        *,
        clock: Clock,
        decoders: Decoders,
        metrics: Metrics,
        opener: Opener = ServedModel.open,
    ) -> None:
        self.statistics = ModelStatistics()
        self.name = ""  # what clients call it; known when the deployment is open
        self._wanted, self._options = model, options
        self._clock, self._decoders, self._metrics, self._open = clock, decoders, metrics, opener
        self._now: Generation | None = None
        self._retiring: set[asyncio.Task[None]] = set()
        self._older: set[Generation] = set()
        self._swapping = asyncio.Lock()
        self._closed = False
        self._proving = Proving(self._prove, every_s=options.prove_every_s, clock=clock)

    @property
    def model(self) -> ServedModel:
        """The deployment that answers now."""
        return self._current().model

    @property
    def is_ready(self) -> bool:
        """Whether it can answer."""
        return self.trouble is None

    @property
    def trouble(self) -> str | None:
        """What keeps it from answering."""
        if self._now is None:
            return "it is not open"
        lost = self._now.scheduler.lost
        if lost is not None:
            wrong = isinstance(lost, CheckFailedError)
            return "its engines give wrong logits" if wrong else "its device is lost"
        return "its engines do not come back" if self._now.model.is_stuck else None

    @property
    def waiting_images(self) -> int:
        """Images that wait for an engine, those of retiring deployments included."""
        return sum(generation.scheduler.waiting_images for generation in self._generations())

    @property
    def requests(self) -> int:
        """Requests that are not answered yet."""
        return sum(generation.requests for generation in self._generations())

    async def start(self) -> None:
        """Open the deployment and run its canary.

        Raises:
            ParnetDeployError: It cannot be opened; see ``ServedModel.open``.
        """
        self._now = await self._generation(self._wanted)
        self.name = self.model.name
        self._announce()
        self._proving.start()

    async def infer(self, request: InferRequest, arrival: Arrival) -> InferResponse:
        """See ``contract.Service``."""
        generation = self._current()  # and it stays this one, whatever takes over meanwhile
        generation.enter()
        try:
            return await self._answer(generation, request, arrival)
        finally:
            generation.leave()

    async def swap(self, options: ModelOptions | None = None) -> Document:
        """Let another deployment take over, or the same one as it is on disk now.

        It is opened and passes its canary beside the one that answers. From then on new requests
        are its own, and the old one is closed when it has answered those that it had. Both are in
        memory for that long.

        Args:
            options: The other deployment; None: the same path. The name stays, whatever it says.

        Returns: model, and old and new with digest, plan and memory_bytes.

        Raises:
            ParnetDeployError: The new one cannot be opened; the old one goes on as before.
        """
        async with self._swapping:
            old, name = self._current(), self.name
            wanted = options or old.model.options
            wanted = ModelOptions(**{**_fields(wanted), "name": name})
            try:
                new = await self._generation(wanted)
            except BaseException:
                self._metrics.swapped(name, "failed")
                raise
            if self._closed:  # meanwhile: the old one is gone, and nobody would close this one
                await new.retire(self._clock, 0.0, self._stopped())
                raise self._stopped()
            self._now = new
            self._metrics.swapped(name, "done")
            self._announce()
            self._older.add(old)
            refusal = RefusedError("late", f"model {name}: it was replaced. Try again.")
            task = asyncio.ensure_future(old.retire(self._clock, self._options.deadline_s, refusal))
            self._retiring.add(task)
            task.add_done_callback(lambda done: self._forget(task, old))
            return {"model": name, "old": _summary(old.model), "new": _summary(new.model)}

    def hurry(self) -> None:
        """No request comes any more: those that wait for others to share a batch wait no longer."""
        for generation in self._generations():
            generation.scheduler.hurry()

    async def close(self, drain_s: float) -> None:
        """Answer what is owed, for so long at most, refuse the rest, and close everything."""
        self._closed = True
        self._proving.stop()
        now, self._now = self._now, None
        if now is not None:
            self._older.add(now)
            await now.retire(self._clock, drain_s, self._stopped())
            self._older.discard(now)
        if self._retiring:
            await asyncio.gather(*self._retiring)

    def metadata(self) -> Document:
        """See ``contract.Service.model_metadata``."""
        return model_metadata(self.model.signature, self.model.backend)

    def config(self) -> Document:
        """See ``contract.Service.model_config``."""
        model = self.model
        return model_config(
            model.signature,
            backend=model.backend,
            devices=model.devices,
            slots=model.options.slots,
            max_queue=self._options.max_queue,
            max_delay_s=self._options.max_delay_ms / 1e3,
            deadline_s=self._options.deadline_s,
            facts=_facts(model),
        )

    def _current(self) -> Generation:
        if self._now is None:
            raise RefusedError("not-ready", "model: it is not open, expected a started server.")
        return self._now

    def _stopped(self) -> RefusedError:
        return RefusedError(
            "draining",
            f"model {self.name}: the server has stopped. Ask another one.",
            retry_after_s=DRAINING_RETRY_S,
        )

    def _generations(self) -> list[Generation]:
        now = [] if self._now is None else [self._now]
        return [*now, *self._older]

    async def _generation(self, options: ModelOptions) -> Generation:
        return await open_generation(
            lambda: self._open(options),
            self._options,
            clock=self._clock,
            on_run=self._ran,
        )

    async def _answer(
        self, generation: Generation, request: InferRequest, arrival: Arrival
    ) -> InferResponse:
        model, signature = generation.model, generation.model.signature
        signature.check_version(request.version)
        wanted = signature.check_outputs(request)
        images = signature.check_inputs(request)
        deadline_s = arrival.at_s + self._time_limit_s(request, arrival)
        prepare_s = 0.0
        if isinstance(images, list):
            assert signature.preprocessing is not None  # or the input would have been refused
            start_s = self._clock.now()
            images = await self._decoders.decode(images, signature.preprocessing, deadline_s)
            prepare_s = self._clock.now() - start_s
        level = request.priority
        if not 1 <= level <= PRIORITY_LEVELS:
            level = DEFAULT_PRIORITY
        answer = await generation.scheduler.answer(images, level=level, deadline_s=deadline_s)
        logits, labels = answer.logits, signature.labels
        if len(logits) > ROWS_ON_LOOP and any(one.classification for one in wanted):
            outputs = await asyncio.to_thread(
                lambda: tuple(make_output(one, logits, labels) for one in wanted)
            )
        else:
            outputs = tuple(make_output(one, logits, labels) for one in wanted)
        return InferResponse(
            model=model.name,
            version=VERSION,
            id=request.id,
            outputs=outputs,
            timings=Timings(
                prepare_s=prepare_s,
                queue_s=answer.queue_s,
                infer_s=answer.infer_s,
                batch=answer.batch,
            ),
        )

    def _time_limit_s(self, request: InferRequest, arrival: Arrival) -> float:
        limit_s = self._options.deadline_s
        if request.timeout_us > 0:
            limit_s = min(limit_s, request.timeout_us / 1e6)
        if arrival.left_s is not None:
            limit_s = min(limit_s, arrival.left_s)
        return limit_s

    async def _prove(self) -> None:
        """Run the canary of what answers now; if its engines are wrong, it answers nobody more."""
        generation = self._now
        if generation is None or generation.scheduler.lost is not None:
            return
        outcome = "passed"
        try:
            await asyncio.to_thread(generation.model.prove)
        except CheckFailedError as error:
            outcome = "failed"
            generation.scheduler.give_up(error)
        except Exception as error:
            if generation is not self._now:  # it was closed meanwhile
                return
            outcome = "error"
            if isinstance(error, DeviceLostError):
                generation.scheduler.give_up(error)
            trace = not isinstance(error, ParnetDeployError)
            _LOG.error("model %s: got no proof: %s", self.name, error, exc_info=trace)
        self._metrics.proved(self.name, outcome)

    def _ran(self, images: int, run_s: float) -> None:
        self.statistics.ran(images, run_s)
        self._metrics.ran(self.name, images)

    def _announce(self) -> None:
        model = self.model
        self._metrics.runs(model.name, _facts(model))
        if model.warning is not None:
            _LOG.warning("%s", model.warning)
        _LOG.info("model %s: now answered by %s", model.name, _facts(model))

    def _forget(self, task: asyncio.Task[None], old: Generation) -> None:
        self._retiring.discard(task)
        self._older.discard(old)


def _facts(model: ServedModel) -> dict[str, str]:
    about = model.about
    keys = ("plan", "backend", "precision")
    return {"digest": model.digest, **{key: str(about.get(key)) for key in keys}}


def _fields(options: ModelOptions) -> dict[str, Any]:
    return {name: getattr(options, name) for name in ModelOptions.__dataclass_fields__}


def _summary(model: ServedModel) -> dict[str, Any]:
    return {
        "digest": model.digest,
        "plan": model.about["plan"],
        "memory_bytes": model.memory_bytes,
    }
