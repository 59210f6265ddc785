"""OpenTelemetry, if it is installed and set up: a span for each inference request.

What is set up is OpenTelemetry's own business, by its own variables (``OTEL_SERVICE_NAME``,
``OTEL_EXPORTER_OTLP_ENDPOINT``, ...). Without ``OTEL_TRACES_EXPORTER`` nothing of it is imported,
and a request pays for one comparison with None.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from importlib import import_module
from typing import Any, Protocol

from ...errors import MissingExtraError, ServeError
from ..protocol.contract import Wire
from ..protocol.request import Timings

VARIABLE = "OTEL_TRACES_EXPORTER"
"""OpenTelemetry's variable that says where spans go: otlp, console, or none."""

_TRACEPARENT = "traceparent"
_NAME = "parnet_deploy.serve"


class Tracer(Protocol):
    """What spans are told to."""

    def finished(
        self,
        wire: Wire,
        request_id: str,
        model: str,
        parent: str | None,
        total_s: float,
        timings: Timings | None,
        refused: str | None,
    ) -> None:
        """A request was answered just now, or refused (why)."""
        ...


def find_tracer(environment: Mapping[str, str] = os.environ) -> Tracer | None:
    """The tracer that the environment asks for; None if it asks for none.

    A program that has set up OpenTelemetry itself makes ``SpanTracer`` of its own provider.

    Raises:
        MissingExtraError: It asks for one, and OpenTelemetry is not installed.
        ServeError: It asks for an exporter that is not known here.
    """
    wanted = environment.get(VARIABLE, "none").strip().lower()
    if wanted in ("", "none"):
        return None
    try:
        sdk = import_module("opentelemetry.sdk.trace")
        export = import_module("opentelemetry.sdk.trace.export")
        if wanted == "console":
            exporter = export.ConsoleSpanExporter()
        elif wanted == "otlp":
            otlp = import_module("opentelemetry.exporter.otlp.proto.http.trace_exporter")
            exporter = otlp.OTLPSpanExporter()
        else:
            raise ServeError(
                f"variable {VARIABLE}: got {wanted!r}, expected otlp, console or none. Unset it."
            )
    except ModuleNotFoundError as error:
        raise MissingExtraError("opentelemetry", "telemetry") from error
    provider = sdk.TracerProvider()
    provider.add_span_processor(export.BatchSpanProcessor(exporter))
    return SpanTracer(provider)


class SpanTracer:
    """Makes spans when a request is over, from the times that were measured anyway.

    The span of a request has children ``queue`` and ``infer``. Its parent is what the client's
    ``traceparent`` (W3C) says.

    Args:
        provider: An OpenTelemetry ``TracerProvider``.
    """

    def __init__(self, provider: Any) -> None:
        self._api = import_module("opentelemetry.trace")
        context = import_module("opentelemetry.trace.propagation.tracecontext")
        self._propagator = context.TraceContextTextMapPropagator()
        self._tracer = provider.get_tracer(_NAME)

    def finished(
        self,
        wire: Wire,
        request_id: str,
        model: str,
        parent: str | None,
        total_s: float,
        timings: Timings | None,
        refused: str | None,
    ) -> None:
        """See ``Tracer``."""
        end_ns = time.time_ns()
        context = None
        if parent is not None:
            context = self._propagator.extract({_TRACEPARENT: parent})
        attributes: dict[str, str | int] = {
            "parnet.wire": wire,
            "parnet.request_id": request_id,
            "parnet.model": model,
        }
        if timings is not None:
            attributes["parnet.batch"] = timings.batch
        span = self._tracer.start_span(
            "infer request",
            context=context,
            kind=self._api.SpanKind.SERVER,
            start_time=end_ns - _ns(total_s),
            attributes=attributes,
        )
        if timings is not None:
            self._add_parts(span, end_ns - _ns(total_s), timings)
        if refused is not None:
            span.set_status(self._api.StatusCode.ERROR, refused)
        span.end(end_time=end_ns)

    def _add_parts(self, parent: Any, start_ns: int, timings: Timings) -> None:
        """One after the other from the start; the codec's share is what is left at the end."""
        context = self._api.set_span_in_context(parent)
        for name in ("prepare", "queue", "infer"):
            length_ns = _ns(getattr(timings, f"{name}_s"))
            if length_ns:
                part = self._tracer.start_span(name, context=context, start_time=start_ns)
                part.end(end_time=start_ns + length_ns)
            start_ns += length_ns


def _ns(seconds: float) -> int:
    return round(seconds * 1e9)
