"""What both wires do in the same way: ask the service, count, write down."""

from __future__ import annotations

import time
from collections.abc import Callable

from ..protocol.contract import Arrival, Service, Wire
from ..protocol.refusal import Kind, RefusedError
from ..protocol.request import InferRequest, InferResponse, Timings
from .logs import RequestLog
from .request_id import RequestIds
from .telemetry import Tracer

OnRefused = Callable[[Wire, Kind], None]


class Shell:
    """One for each server. Lives on its event loop.

    Args:
        service: What answers.
        log: Where finished requests are written; None: to the package's own log.
        on_refused: Called for what never came to the service, which counts the rest itself.
        tracer: Told of each request that came to the service; None: nobody is.
    """

    def __init__(
        self,
        service: Service,
        *,
        log: RequestLog | None = None,
        on_refused: OnRefused | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        self.service = service
        self.ids = RequestIds()
        self._log, self._on_refused = log or RequestLog(), on_refused
        self._tracer = tracer

    async def infer(
        self, request: InferRequest, arrival: Arrival, request_id: str, traceparent: str | None
    ) -> InferResponse:
        """Ask the service.

        Args:
            request: What is asked.
            arrival: How it came.
            request_id: What it is called in logs and spans.
            traceparent: What the client says of the trace that it belongs to (W3C).

        Raises:
            RefusedError: Marked as counted.
        """
        timings = refused = None
        try:
            response = await self.service.infer(request, arrival)
            timings = response.timings
        except RefusedError as error:
            error.counted = True
            refused = str(error)
            raise
        finally:
            if self._tracer is not None:
                total_s = time.perf_counter() - arrival.at_s
                wire, model = arrival.wire, request.model
                self._tracer.finished(
                    wire, request_id, model, traceparent, total_s, timings, refused
                )
        return response

    def answered(
        self,
        wire: Wire,
        request_id: str,
        what: str,
        timings: Timings | None,
        at_s: float,
        *,
        peer: str = "",
    ) -> None:
        """A request was answered. ``what``: method and path, or the rpc."""
        self._log.answered(wire, request_id, what, timings, time.perf_counter() - at_s, peer=peer)

    def refused(
        self,
        wire: Wire,
        request_id: str,
        what: str,
        error: RefusedError,
        at_s: float,
        *,
        peer: str = "",
    ) -> None:
        """A request was refused, whoever is to blame."""
        if self._on_refused is not None and not error.counted:
            self._on_refused(wire, error.kind)
        self._log.refused(wire, request_id, what, error, time.perf_counter() - at_s, peer=peer)

    def flush(self) -> None:
        """Write down what is not yet; called last."""
        self._log.flush()

    def broke(self, wire: Wire, request_id: str, what: str, at_s: float, *, peer: str = "") -> str:
        """A bug; called where the exception is handled. What to tell the client."""
        if self._on_refused is not None:
            self._on_refused(wire, "failed")
        self._log.broke(wire, request_id, what, time.perf_counter() - at_s, peer=peer)
        return f"request {request_id}: got an error of the server. Report it, with this id."
