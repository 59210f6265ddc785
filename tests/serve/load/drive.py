"""Clients in a process of their own: ``python -m tests.serve.load.drive '<Load as JSON>'``.

Each client has its own image, knows its answer, and checks every answer it gets. The report goes
to standard output as JSON.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import httptools

from tests.serve.load import known as known_module
from tests.serve.load.http_client import LIMIT_S, HttpClient, post
from tests.serve.load.known import Known
from tests.serve.load.tally import Tally, spread

METHOD = "/inference.GRPCInferenceService/ModelInfer"


@dataclass(frozen=True, kw_only=True)
class Load:
    """What to send.

    ``rest`` and ``grpc`` clients, every other one with an encoded image. Each sends ``each``
    requests, or as many as go into ``seconds``; one after the other, or all clients together
    ``rate`` in a second. ``deadlines_ms``: between which each request's own is drawn. After a
    refusal a client waits as long as it is told and a random part more, so that they do not all
    come back together; ``pause_s`` at most. ``failures``: an engine may fail, if it is said so.
    """

    host: str
    port: int
    grpc_port: int
    known: str
    rest: int = 0
    grpc: int = 0
    each: int | None = None
    seconds: float | None = None
    rate: float | None = None
    deadlines_ms: tuple[int, int] | None = None
    pause_s: float = 60.0
    failures: bool = False


class Client:
    """One client of one wire."""

    def __init__(self, load: Load, number: int, known: Known, tally: Tally) -> None:
        self.load, self.number, self.known, self.tally = load, number, known, tally
        self.encoded = number % 2 == 1
        self.random = random.Random(number)

    async def open(self) -> None:
        raise NotImplementedError

    async def close(self) -> None:
        raise NotImplementedError

    async def ask(self, request_id: str, deadline_ms: int) -> float | None:
        """Send one request and count it; how long to pause after a refusal, None otherwise."""
        raise NotImplementedError

    async def run(self, start_s: float) -> None:
        """Send what the load says."""
        load, sent = self.load, 0
        clients = load.rest + load.grpc
        while load.each is None or sent < load.each:
            now = time.perf_counter() - start_s
            if load.rate is not None:
                turn = max(sent, int((now * load.rate - self.number) / clients))
                sent = turn  # what could not be sent in time is left out, not made up for
                due = (self.number + turn * clients) / load.rate
                await asyncio.sleep(max(0.0, due - now))
                now = time.perf_counter() - start_s
            if load.seconds is not None and now >= load.seconds:
                return
            deadline_ms = self.random.randint(*load.deadlines_ms) if load.deadlines_ms else 0
            pause_s = await self.ask(f"{self.number}-{sent}", deadline_ms)
            sent += 1
            if pause_s is not None:
                await asyncio.sleep(min(self.random.uniform(1, 2) * pause_s, load.pause_s))

    def answered(
        self, request_id: str, found: tuple[str, Any], ms: float, deadline_ms: int
    ) -> None:
        """Check and count an answer."""
        found_id, logits = found
        self.tally.ok_ms.append(ms)
        self.tally.mixed += found_id != request_id
        self.tally.wrong += not self.known.is_right(self.number, logits)
        self.tally.late += bool(deadline_ms) and ms > deadline_ms


class RestClient(Client):
    """Over REST, on one connection that is kept open."""

    async def open(self) -> None:
        self.http = HttpClient(self.load.host, self.load.port)
        await self.http.connect()

    async def close(self) -> None:
        self.http.close()

    async def ask(self, request_id: str, deadline_ms: int) -> float | None:
        headers, body = known_module.rest_request(
            self.known, self.number, request_id, encoded=self.encoded, timeout_us=1000 * deadline_ms
        )
        head = post(f"/v2/models/{self.known.model}/infer", headers, len(body))
        begin = time.perf_counter()
        try:
            answer = await self.http.ask(head, body)
        except (OSError, asyncio.TimeoutError, httptools.HttpParserError) as error:
            self.tally.unanswered.append(f"REST: {error!r}")
            return 0.0
        ms = 1e3 * (time.perf_counter() - begin)
        if answer.status == 200:
            found = known_module.rest_logits(answer.headers, answer.body)
            self.answered(request_id, found, ms, deadline_ms)
            total_ms = _server_ms(answer.headers.get("server-timing", ""))
            self.tally.late_by_server += bool(deadline_ms) and total_ms > deadline_ms
            return None
        if answer.status == 500 and self.load.failures and b"the engine failed" in answer.body:
            self.tally.failed += 1
            return None
        if answer.status != 503:
            self.tally.unexpected.append(f"REST {answer.status}: {answer.body[:300]!r}")
            return None
        retry_after = answer.headers.get("retry-after")
        try:
            reason = str(json.loads(answer.body)["error"])
        except (ValueError, KeyError, TypeError):
            reason = ""
        self.tally.refuse(f"REST {reason}", ms)
        if not reason or retry_after is None:
            self.tally.unhelpful.append(f"REST 503: {answer.headers} {answer.body[:300]!r}")
        return float(retry_after or 0.0)


def _server_ms(timing: str) -> float:
    """What the server says it took in all."""
    for entry in timing.split(","):
        name, _, value = entry.strip().partition(";dur=")
        if name == "total":
            return float(value)
    return 0.0


class GrpcClient(Client):
    """Over gRPC, on a channel of its own."""

    async def open(self) -> None:
        options = [("grpc.use_local_subchannel_pool", 1)]
        target = f"{self.load.host}:{self.load.grpc_port}"
        self.channel = grpc.aio.insecure_channel(target, options=options)
        self.infer = self.channel.unary_unary(METHOD)
        await asyncio.wait_for(self.channel.channel_ready(), LIMIT_S)

    async def close(self) -> None:
        await self.channel.close()

    async def ask(self, request_id: str, deadline_ms: int) -> float | None:
        request = known_module.grpc_request(
            self.known, self.number, request_id, encoded=self.encoded, timeout_us=1000 * deadline_ms
        )
        begin = time.perf_counter()
        try:
            answer = await self.infer(request, timeout=LIMIT_S)
        except grpc.aio.AioRpcError as error:
            ms = 1e3 * (time.perf_counter() - begin)
            code, details = error.code(), error.details() or ""
            if code == grpc.StatusCode.UNAVAILABLE and ms < 1e3 * LIMIT_S:
                self.tally.refuse(f"gRPC {details}", ms)
                if not details:
                    self.tally.unhelpful.append("gRPC UNAVAILABLE: no details")
                return min(1.0, self.load.pause_s)
            if (
                code == grpc.StatusCode.INTERNAL
                and self.load.failures
                and "engine failed" in details
            ):
                self.tally.failed += 1
                return None
            kind = self.tally.unexpected
            if code == grpc.StatusCode.DEADLINE_EXCEEDED:  # the client's own limit: a hang
                kind = self.tally.unanswered
            kind.append(f"gRPC {code}: {details[:300]}")
            return 0.0
        ms = 1e3 * (time.perf_counter() - begin)
        self.answered(request_id, known_module.grpc_logits(answer), ms, deadline_ms)
        return None


async def drive(load: Load) -> dict[str, Any]:
    """Open all clients, let them run, and report."""
    known, tally = Known.load(Path(load.known)), Tally()
    clients: list[Client] = [RestClient(load, n, known, tally) for n in range(load.rest)]
    clients += [GrpcClient(load, load.rest + n, known, tally) for n in range(load.grpc)]
    await asyncio.gather(*(client.open() for client in clients))
    lags_ms: list[float] = []
    lag = asyncio.create_task(_measure_lag(lags_ms))
    start_s = time.perf_counter()
    await asyncio.gather(*(client.run(start_s) for client in clients))
    seconds = time.perf_counter() - start_s
    lag.cancel()
    await asyncio.gather(*(client.close() for client in clients))
    return tally.report(seconds) | {"own_lag_ms": spread(lags_ms), "load": asdict(load)}


async def _measure_lag(lags_ms: list[float]) -> None:
    """How late this process itself is: what a client's clock says too much at least."""
    while True:
        begin = time.perf_counter()
        await asyncio.sleep(0.01)
        lags_ms.append(1e3 * (time.perf_counter() - begin - 0.01))


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    if given.get("deadlines_ms"):
        given["deadlines_ms"] = tuple(given["deadlines_ms"])
    print(json.dumps(asyncio.run(drive(Load(**given)))))
