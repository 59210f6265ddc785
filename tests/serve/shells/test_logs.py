"""What is written down of requests."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from datetime import datetime

import grpc
import grpc.aio
import pytest

from parnet_deploy.serve.protocol.refusal import RefusedError
from parnet_deploy.serve.protocol.request import Timings
from parnet_deploy.serve.shells.logs import (
    LOGGER,
    JsonFormatter,
    RequestLog,
    TextFormatter,
    peer_of,
)
from tests.serve import wire
from tests.serve.wire import connected


def make_record(log_something, caplog, level=logging.INFO):
    caplog.set_level(level, LOGGER.name)
    log_something(RequestLog())
    (record,) = caplog.records
    return record


def test_an_answer_with_where_its_time_went(caplog) -> None:
    timings = Timings(prepare_s=0.001, queue_s=0.0025, infer_s=0.0101, batch=3)
    record = make_record(
        lambda log: log.answered("grpc", "a-1", "X", timings, 0.02, peer="a:1"), caplog
    )
    assert record.fields == {
        "wire": "grpc",
        "id": "a-1",
        "peer": "a:1",
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


def test_a_line_for_people_says_when(caplog) -> None:
    record = make_record(lambda log: log.answered("rest", "a", "X", None, 0.0), caplog)
    at = datetime.fromisoformat(TextFormatter().format(record).split()[0])
    assert at.timestamp() == pytest.approx(record.created, abs=0.002)


def test_the_address_of_a_client_in_one_word() -> None:
    assert peer_of(("127.0.0.1", 80)) == "127.0.0.1:80"
    assert peer_of(("::1", 80)) == "[::1]:80"
    assert peer_of(None) == ""


def test_both_wires_write_down_who_asked(caplog) -> None:
    caplog.set_level(logging.INFO, LOGGER.name)

    async def body(server, service):
        async with connected(server) as http:
            await http.ask("/v2")
            await http.ask("/none")
        async with grpc.aio.insecure_channel(server.grpc_target) as channel:
            await channel.unary_unary("/inference.GRPCInferenceService/ServerLive")(b"")
            with pytest.raises(grpc.aio.AioRpcError):
                await channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")(b"\xff")

    wire.serve(body, port=0, grpc_port=0)
    fields = [r.fields for r in caplog.records if r.getMessage() == "request"]
    assert [f["wire"] for f in fields] == ["rest", "rest", "grpc", "grpc"]
    assert all(re.fullmatch(r"127\.0\.0\.1:\d+", f["peer"]) for f in fields), fields


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
    caplog.clear()
    now[0] += 1.0
    log.answered("rest", "a", "X", None, 0.0)
    (record,) = caplog.records
    assert record.getMessage() == "990 more refusals: busy"
    assert record.fields == {"status": "busy", "left_out": 990}
    log.refused("rest", "a", "X", busy, 0.0)
    log.flush()
    assert len(caplog.records) == 2


def test_what_was_left_out_is_told_though_nothing_comes_after(caplog) -> None:
    log = RequestLog(clock=lambda: 100.0)

    async def flood() -> None:
        loop = asyncio.get_running_loop()
        delays = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                loop, "call_later", lambda s, told: (delays.append(s), loop.call_soon(told))[1]
            )
            for _ in range(15):
                log.refused("rest", "a", "X", RefusedError("busy", "no."), 0.0)
        await asyncio.sleep(0)
        assert delays == [1.0]

    asyncio.run(flood())
    assert caplog.records[-1].getMessage() == "5 more refusals: busy"


def test_the_end_of_the_server_tells_what_was_left_out(caplog) -> None:
    async def body(server, service):
        async with connected(server) as http:
            for _ in range(12):
                assert (await http.ask("/none")).status == 404

    wire.serve(body, port=0, grpc_port=None)
    assert sum(r.getMessage() == "request" for r in caplog.records) in range(10, 13)
    left_out = sum(getattr(r, "fields", {}).get("left_out", 0) for r in caplog.records)
    assert sum(r.getMessage() == "request" for r in caplog.records) + left_out == 12


def test_who_wants_every_request_gets_every_refusal(caplog) -> None:
    caplog.set_level(logging.INFO, LOGGER.name)
    log = RequestLog(clock=lambda: 100.0)
    for _ in range(50):
        log.refused("rest", "a", "X", RefusedError("busy", "no."), 0.0)
    assert len(caplog.records) == 50


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
