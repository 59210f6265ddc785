"""``InferenceService``: everything that can be asked of the models, whatever wire it came over."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import AsyncExitStack

from ... import __version__
from ...errors import SpecError
from ..clock import Clock, LoopClock
from ..model.decoders import Decoders
from ..model.options import ModelOptions
from ..model.served_model import ServedModel
from ..model.signature import VERSION
from ..protocol.contract import Arrival, Document
from ..protocol.refusal import DRAINING_RETRY_S, RefusedError
from ..protocol.request import InferRequest, InferResponse
from .host import Host, Opener
from .metrics import Gauges, Metrics
from .options import ServiceOptions

EXTENSIONS = (
    "binary_tensor_data",
    "classification",
    "model_configuration",
    "parameters",
    "schedule_policy",
    "statistics",
)
"""Extensions of the protocol that are spoken."""

SERVER = "parnet-deploy"


class InferenceService:
    """``contract.Service`` over one or more deployments.

    Nothing is opened before ``start``; ``async with`` starts and closes it. Everything runs on the
    event loop of ``start``, and nothing blocks that.

    Args:
        models: What to serve. Names must differ.
        options: Limits.
        clock: Time; None: the real one.
        opener: Opens a deployment; tests replace it.

    Owns: engines and threads, until ``close``.
    """

    def __init__(
        self,
        models: Iterable[ModelOptions],
        options: ServiceOptions | None = None,
        *,
        clock: Clock | None = None,
        opener: Opener = ServedModel.open,
    ) -> None:
        self.options = options or ServiceOptions()
        self.metrics = Metrics(self._gauges)
        self._wanted, self._clock, self._open = tuple(models), clock, opener
        self._hosts: dict[str, Host] = {}
        self._decoders: Decoders | None = None
        self._draining = False

    async def __aenter__(self) -> InferenceService:
        await self.start()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    async def start(self) -> None:
        """Open every model and run its canary; then the service is ready.

        Raises:
            SpecError: No model, or two of one name.
            ParnetDeployError: A model cannot be opened; none stays open.
        """
        if not self._wanted:
            raise SpecError("models: got none, expected one or more. Name a deployment.")
        self._clock = clock = self._clock or LoopClock()
        options, hosts = self.options, dict[str, Host]()
        async with AsyncExitStack() as undo:
            decoders = Decoders(
                threads=options.decoders,
                max_waiting=max(options.max_queue, options.decoders),
                max_image_bytes=options.max_image_bytes,
                max_image_pixels=options.max_image_pixels,
                clock=clock,
            )
            undo.callback(decoders.close)
            for wanted in self._wanted:
                host = Host(
                    wanted,
                    options,
                    clock=clock,
                    decoders=decoders,
                    metrics=self.metrics,
                    opener=self._open,
                )
                await host.start()
                undo.push_async_callback(host.close, 0.0)
                if host.name in hosts:
                    raise SpecError(
                        f"models: got {host.name} twice, expected different names. "
                        "Give one of them another name."
                    )
                hosts[host.name] = host
            undo.pop_all()
        self._decoders, self._hosts = decoders, hosts

    def begin_drain(self) -> None:
        """Refuse new requests from now on and say so in the readiness; go on with the others."""
        self._draining = True
        for host in self._hosts.values():
            host.hurry()

    async def close(self, drain_s: float = 0.0) -> None:
        """Answer what was accepted, for so long at most, refuse the rest, and close. Idempotent."""
        self.begin_drain()
        hosts = list(self._hosts.values())
        await asyncio.gather(*(host.close(drain_s) for host in hosts))
        if self._decoders is not None:
            self._decoders.close()

    @property
    def models(self) -> tuple[str, ...]:
        """Names of the models."""
        return tuple(self._hosts)

    def is_live(self) -> bool:
        """See ``contract.Service``."""
        return True

    def is_ready(self) -> bool:
        """See ``contract.Service``."""
        hosts = self._hosts.values()
        return bool(hosts) and not self._draining and all(host.is_ready for host in hosts)

    def is_model_ready(self, name: str, version: str = "") -> bool:
        """See ``contract.Service``."""
        if not self._hosts:
            return False
        host = self._find(name, version)
        return host.is_ready and not self._draining

    def server_metadata(self) -> Document:
        """See ``contract.Service``."""
        return {"name": SERVER, "version": __version__, "extensions": list(EXTENSIONS)}

    def model_metadata(self, name: str, version: str = "") -> Document:
        """See ``contract.Service``."""
        return self._find(name, version).metadata()

    def model_config(self, name: str, version: str = "") -> Document:
        """See ``contract.Service``."""
        return self._find(name, version).config()

    def statistics(self, name: str = "", version: str = "") -> Document:
        """See ``contract.Service``."""
        names = [self._find(name, version).name] if name else list(self._hosts)
        found = [self._hosts[each].statistics.to_json(each, VERSION) for each in names]
        return {"model_stats": found}

    def repository_index(self, *, ready_only: bool = False) -> list[Document]:
        """See ``contract.Service``."""
        ready = {name: host.is_ready and not self._draining for name, host in self._hosts.items()}
        return [
            {
                "name": name,
                "version": VERSION,
                "state": "READY" if ready[name] else "UNAVAILABLE",
                "reason": "" if ready[name] else self._reason(host),
            }
            for name, host in self._hosts.items()
            if ready[name] or not ready_only
        ]

    def model_card(self, name: str) -> Document:
        """What a person should know of the model that answers; see ``model.card``."""
        return self._find(name, "").model.card

    def trouble(self, name: str) -> str | None:
        """What keeps a model from answering, if anything does."""
        return self._find(name, "").trouble

    def warnings(self) -> list[str]:
        """What whoever runs the server should know of its models."""
        found = (host.model.warning for host in self._hosts.values())
        return [warning for warning in found if warning is not None]

    def describe(self) -> Document:
        """The server for people: name, version, ready, and the card of each model."""
        return {
            "name": SERVER,
            "version": __version__,
            "ready": self.is_ready(),
            "models": {name: host.model.card for name, host in self._hosts.items()},
        }

    async def infer(self, request: InferRequest, arrival: Arrival) -> InferResponse:
        """See ``contract.Service``."""
        host, clock = self._hosts.get(request.model), self._clock
        try:
            if host is None or clock is None:
                raise self._unknown(request.model)
            if self._draining:
                raise RefusedError(
                    "draining",
                    "server: it is stopping and takes no new request. Ask another one.",
                    retry_after_s=DRAINING_RETRY_S,
                )
            response = await host.infer(request, arrival)
        except RefusedError as error:
            self.metrics.refused("" if host is None else request.model, arrival.wire, error.kind)
            if host is not None and clock is not None:
                host.statistics.failed(clock.now() - arrival.at_s)
            raise
        total_s = clock.now() - arrival.at_s
        host.statistics.succeeded(total_s, response.timings)
        self.metrics.answered(request.model, arrival.wire, total_s, response.timings)
        return response

    async def swap(self, name: str, options: ModelOptions | None = None) -> Document:
        """Let another deployment take over a name, or the same one as it is on disk now.

        See ``Host.swap``: nothing is lost, and if the new one cannot be opened, nothing changes.
        This is for who runs the server; no wire of the protocol leads here.

        Raises:
            RefusedError: There is no such model, or the server is stopping.
            ParnetDeployError: The new one cannot be opened.
        """
        host = self._find(name, "")
        if self._draining:
            raise RefusedError("draining", "server: it is stopping and takes no new deployment.")
        return await host.swap(options)

    def _find(self, name: str, version: str) -> Host:
        host = self._hosts.get(name)
        if host is None:
            raise self._unknown(name)
        host.model.signature.check_version(version)
        return host

    def _unknown(self, name: str) -> RefusedError:
        if not self._hosts:
            return RefusedError(
                "not-ready", "server: it is starting, and its models are not open yet. Try again."
            )
        names = ", ".join(self._hosts)
        return RefusedError(
            "not-found", f"model: got {name[:100]!r}, expected {names}. Correct the name."
        )

    def _reason(self, host: Host) -> str:
        return "the server is stopping" if self._draining else host.trouble or ""

    def _gauges(self) -> Gauges:
        return {
            name: (host.waiting_images, host.requests, host.is_ready and not self._draining)
            for name, host in self._hosts.items()
        }
