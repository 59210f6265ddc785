"""What is written down of requests."""

from __future__ import annotations

import json
import logging

import pytest

from parnet_deploy.serve.protocol.refusal import RefusedError
from parnet_deploy.serve.protocol.request import Timings
from parnet_deploy.serve.shells.logs import LOGGER, JsonFormatter, RequestLog, TextFormatter


def make_record(log_something, caplog, level=logging.INFO):
    caplog.set_level(level, LOGGER.name)
    log_something(RequestLog())
    (record,) = caplog.records
    return record


def test_an_answer_with_where_its_time_went(caplog) -> None:
    timings = Timings(prepare_s=0.001, queue_s=0.0025, infer_s=0.0101, batch=3)
    record = make_record(lambda log: log.answered("grpc", "a-1", "X", timings, 0.02), caplog)
    assert record.fields == {
        "wire": "grpc",
        "id": "a-1",
        "what": "X",
        "status": "ok",
        "batch": 3,
        "prepare_ms": 1.0,
        "queue_ms": 2.5,
        "infer_ms": 10.1,
        "total_ms": 20.0,
    }
    document = json.loads(JsonFormatter().format(record))
    assert document.items() >= {"level": "info", "message": "request", **record.fields}.items()
    assert " queue_ms=2.5 infer_ms=10.1 " in TextFormatter().format(record)


def test_answers_are_not_even_put_together_if_nobody_reads_them(caplog) -> None:
    caplog.set_level(logging.WARNING, LOGGER.name)
    RequestLog().answered("rest", "a", "X", None, float("nan"))
    assert not caplog.records


def test_what_a_client_sent_cannot_forge_lines(caplog) -> None:
    error = RefusedError("invalid", "name: got 'a\nlevel=error', expected b.")
    record = make_record(lambda log: log.refused("rest", "a", "GET /\n\x1b[2J", error, 0.0), caplog)
    text = TextFormatter().format(record)
    assert text.isprintable()
    assert "status=invalid" in text
    assert "\n" not in JsonFormatter().format(record)


def test_an_overload_does_not_flood_the_log(caplog) -> None:
    now = [100.0]
    log = RequestLog(clock=lambda: now[0])
    busy, late = (RefusedError(kind, "no.") for kind in ("busy", "late"))
    for _ in range(1000):
        log.refused("rest", "a", "X", busy, 0.0)
    log.refused("rest", "a", "X", late, 0.0)
    assert [r.fields["status"] for r in caplog.records] == ["busy"] * 10 + ["late"]
    now[0] += 1.0
    log.refused("rest", "a", "X", busy, 0.0)
    assert caplog.records[-1].fields["left_out"] == 990
    log.refused("rest", "a", "X", busy, 0.0)
    assert "left_out" not in caplog.records[-1].fields


def test_a_bug_has_its_traceback_in_both_forms(caplog) -> None:
    def write(log):
        try:
            raise ZeroDivisionError("here")
        except ZeroDivisionError:
            log.broke("rest", "a", "X", 0.0)

    record = make_record(write, caplog)
    assert "ZeroDivisionError: here" in json.loads(JsonFormatter().format(record))["traceback"]
    assert "ZeroDivisionError: here" in TextFormatter().format(record)


@pytest.mark.parametrize("formatter", [TextFormatter(), JsonFormatter()])
def test_lines_of_others_are_formatted_too(formatter) -> None:
    record = logging.LogRecord("other", logging.ERROR, "", 1, "went %s", ("wrong",), None)
    assert "went wrong" in formatter.format(record)
