"""What both wires do in the same way: ask the service, count, write down."""

from __future__ import annotations

import time
from collections.abc import Callable

from .logs import RequestLog
from .protocol.contract import Arrival, Service, Wire
from .protocol.refusal import Kind, RefusedError
from .protocol.request import InferRequest, InferResponse, Timings
from .request_id import RequestIds

OnRefused = Callable[[Wire, Kind], None]


class Shell:
    """One for each server. Lives on its event loop.

    Args:
        service: What answers.
        log: Where finished requests are written; None: to the package's own log.
        on_refused: Called for what never came to the service, which counts the rest itself.
    """

    def __init__(
        self,
        service: Service,
        *,
        log: RequestLog | None = None,
        on_refused: OnRefused | None = None,
    ) -> None:
        self.service = service
        self.ids = RequestIds()
        self._log, self._on_refused = log or RequestLog(), on_refused

    async def infer(self, request: InferRequest, arrival: Arrival) -> InferResponse:
        """Ask the service.

        Raises:
            RefusedError: Marked as counted.
        """
        try:
            return await self.service.infer(request, arrival)
        except RefusedError as error:
            error.counted = True
            raise

    def answered(
        self, wire: Wire, request_id: str, what: str, timings: Timings | None, at_s: float
    ) -> None:
        """A request was answered. ``what``: method and path, or the rpc."""
        self._log.answered(wire, request_id, what, timings, time.perf_counter() - at_s)

    def refused(
        self, wire: Wire, request_id: str, what: str, error: RefusedError, at_s: float
    ) -> None:
        """A request was refused, whoever is to blame."""
        if self._on_refused is not None and not error.counted:
            self._on_refused(wire, error.kind)
        self._log.refused(wire, request_id, what, error, time.perf_counter() - at_s)

    def broke(self, wire: Wire, request_id: str, what: str, at_s: float) -> str:
        """A bug; called where the exception is handled. What to tell the client."""
        if self._on_refused is not None:
            self._on_refused(wire, "failed")
        self._log.broke(wire, request_id, what, time.perf_counter() - at_s)
        return f"request {request_id}: got an error of the server. Report it, with this id."
