"""Spans of requests, and nothing without them."""

from __future__ import annotations

import subprocess
import sys

import pytest

from parnet_deploy.errors import MissingExtraError, ServeError
from parnet_deploy.serve.protocol.refusal import RefusedError
from parnet_deploy.serve.shells import telemetry
from tests.serve import wire
from tests.serve.rpc.test_rpc import client_of, infer_request, refusal
from tests.serve.wire import INFER, connected, json_body

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"


@pytest.fixture
def spans():
    """A tracer, and where its spans are kept."""
    trace = pytest.importorskip("opentelemetry.sdk.trace", reason="needs opentelemetry-sdk")
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    kept = InMemorySpanExporter()
    provider = trace.TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(kept))
    return telemetry.SpanTracer(provider), kept


def serve(body, tracer) -> None:
    wire.serve(body, grpc_port=0, tracer=tracer)


def test_a_span_for_each_request_in_the_trace_of_its_client(spans) -> None:
    tracer, kept = spans

    async def body(server, service):
        async with connected(server) as http:
            await http.ask(INFER, json_body(), X_Request_ID="r-1", traceparent=PARENT)
        async with client_of(server) as client:
            metadata = (("traceparent", PARENT), ("x-request-id", "g-1"))
            await client.call("ModelInfer", infer_request(), metadata=metadata)
            async for _ in client.stream([infer_request()] * 2, metadata=metadata):
                pass

    serve(body, tracer)
    found = kept.get_finished_spans()
    requests = [span for span in found if span.name == "infer request"]
    assert [s.attributes["parnet.request_id"] for s in requests] == ["r-1", "g-1", "g-1", "g-1"]
    assert [s.attributes["parnet.wire"] for s in requests] == ["rest", "grpc", "grpc", "grpc"]
    assert {format(s.context.trace_id, "032x") for s in found} == {TRACE}
    for span in requests:
        assert span.parent.span_id == int(PARENT.split("-")[2], 16)
        parts = [s for s in found if s.parent.span_id == span.context.span_id]
        assert {s.name: s.end_time - s.start_time for s in parts} == {
            "queue": 1_000_000,  # as the fake service has it
            "infer": 2_000_000,
        }
        assert span.attributes["parnet.batch"] == 2


def test_a_refusal_is_an_error_and_a_bad_parent_is_none(spans) -> None:
    tracer, kept = spans

    async def body(server, service):
        service.refusal = RefusedError("busy", "queue: full.")
        async with connected(server) as http:
            assert (await http.ask(INFER, json_body(), traceparent="nonsense")).status == 503
        async with client_of(server) as client:
            await refusal(client.call("ModelInfer", infer_request()))

    serve(body, tracer)
    found = kept.get_finished_spans()
    assert [span.status.description for span in found] == ["queue: full."] * 2
    assert [span.parent for span in found] == [None, None]


@pytest.mark.parametrize("value", ["", "none", " None "])
def test_without_its_variable_nothing_of_it_is_loaded(value) -> None:
    assert telemetry.find_tracer({}) is None
    script = (
        "from parnet_deploy.serve.shells.telemetry import find_tracer; import sys;"
        f"assert find_tracer({{'OTEL_TRACES_EXPORTER': {value!r}}}) is None;"
        "assert not any(name.startswith('opentelemetry') for name in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_what_cannot_be_exported_is_said(monkeypatch) -> None:
    with pytest.raises(ServeError, match="expected otlp, console or none"):
        telemetry.find_tracer({telemetry.VARIABLE: "zipkin"})
    assert telemetry.find_tracer({telemetry.VARIABLE: "console"}) is not None
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(MissingExtraError, match=r"parnet-deploy\[telemetry\]"):
        telemetry.find_tracer({telemetry.VARIABLE: "otlp"})
