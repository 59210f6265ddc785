"""What the server writes down: one line a request, as text or JSON; never a token or a payload."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

from ..protocol.contract import Wire
from ..protocol.refusal import RefusedError
from ..protocol.request import Timings

LOGGER = logging.getLogger("parnet_deploy.serve")
_LINES_A_SECOND = 10  # of each reason; an overload must not become one of the log too


class RequestLog:
    """Writes finished requests: answers at level INFO, refusals at WARNING, bugs at ERROR.

    Of refusals for one reason ten lines a second are written, and how many more there were; at
    level INFO, all of them. Not thread-safe: it belongs to the event loop.
    """

    def __init__(
        self, logger: logging.Logger = LOGGER, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._logger, self._clock = logger, clock
        self._second = 0
        self._written: dict[str, int] = {}
        self._left_out: dict[str, int] = {}
        self._timer: asyncio.TimerHandle | None = None

    def answered(
        self,
        wire: Wire,
        request_id: str,
        what: str,
        timings: Timings | None,
        total_s: float,
        *,
        peer: str = "",
    ) -> None:
        """A request was answered.

        ``what``: method and path, or the rpc; ``peer``: the client's address, as ``peer_of``.
        """
        if self._left_out:
            self._turn()
        if not self._logger.isEnabledFor(logging.INFO):
            return
        fields = _fields(wire, request_id, what, "ok", peer)
        if timings is not None:
            fields |= {"batch": timings.batch}
            for name in ("prepare", "queue", "infer"):
                fields[f"{name}_ms"] = round(1e3 * getattr(timings, f"{name}_s"), 3)
        self._write(logging.INFO, fields, total_s)

    def refused(
        self,
        wire: Wire,
        request_id: str,
        what: str,
        error: RefusedError,
        total_s: float,
        *,
        peer: str = "",
    ) -> None:
        """A request was refused, whoever is to blame."""
        reason = error.kind
        self._turn()
        self._written[reason] = self._written.get(reason, 0) + 1
        everything = self._logger.isEnabledFor(logging.INFO)
        if self._written[reason] > _LINES_A_SECOND and not everything:
            self._left_out[reason] = self._left_out.get(reason, 0) + 1
            self._tell_later()
            return
        fields = _fields(wire, request_id, what, reason, peer)
        self._write(logging.WARNING, {**fields, "error": str(error)}, total_s)

    def broke(
        self, wire: Wire, request_id: str, what: str, total_s: float, *, peer: str = ""
    ) -> None:
        """A bug; called where the exception is handled, for its traceback."""
        self._turn()
        fields = _fields(wire, request_id, what, "bug", peer)
        self._write(logging.ERROR, fields, total_s, trace=True)

    def flush(self) -> None:
        """Write how many refusals were left out. Whoever ends the server calls it last."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for reason, count in self._left_out.items():
            fields = {"status": reason, "left_out": count}
            text = f"{count} more refusals: {reason}"
            self._logger.warning("%s", text, extra={"fields": fields})
        self._left_out.clear()

    def _turn(self) -> None:
        """Begin another second, if it is one."""
        second = int(self._clock())
        if second != self._second:
            self._second = second
            self._written.clear()
            self.flush()

    def _tell_later(self) -> None:
        """Nothing else may happen for long. Without an event loop the next record tells it."""
        if self._timer is None:
            with contextlib.suppress(RuntimeError):
                self._timer = asyncio.get_running_loop().call_later(1.0, self.flush)

    def _write(
        self, level: int, fields: dict[str, Any], total_s: float, *, trace: bool = False
    ) -> None:
        fields["total_ms"] = round(1e3 * total_s, 3)
        self._logger.log(level, "request", exc_info=trace, extra={"fields": fields})


def peer_of(client: tuple[str, int] | list[Any] | None) -> str:
    """A client's address and port, as ASGI gives them, in one word; empty if there is none."""
    if not client:
        return ""
    host, port = client
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _fields(wire: Wire, request_id: str, what: str, status: str, peer: str) -> dict[str, Any]:
    fields = {"wire": wire, "id": request_id, "peer": peer, "what": what, "status": status}
    return {name: value for name, value in fields.items() if value}


class TextFormatter(logging.Formatter):
    """For people: ``2026-01-31T12:00:00.123+00:00 request wire=rest id=... total_ms=1.2``."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """One line, whatever a client sent."""
        fields = getattr(record, "fields", {})
        at = datetime.fromtimestamp(record.created).astimezone().isoformat(timespec="milliseconds")
        parts = [at, record.getMessage(), *(f"{name}={value}" for name, value in fields.items())]
        return "".join(c if c.isprintable() else "?" for c in " ".join(parts))


class JsonFormatter(logging.Formatter):
    """For machines: one JSON object a line, ``time`` in seconds since 1970."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as JSON."""
        entry = {
            "time": round(record.created, 3),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str)
