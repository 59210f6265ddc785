"""Clients that misbehave, in a process of their own: ``python -m tests.soak.vandals '<JSON>'``.

They break off, cancel, dawdle, send nonsense and ask for the impossible. What they get does not
matter, but that they get something: whoever still listens is answered, or hung up on.
"""

from __future__ import annotations

import json
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from tests.serve.fuzz.sockets import HangError, abandon, converse
from tests.serve.load.drive import METHOD
from tests.serve.load.http_client import post
from tests.serve.load.known import Known, grpc_request, rest_request


@dataclass
class Victim:
    """The server, what would be a good request, and what came of the bad ones."""

    port: int
    channel: grpc.Channel
    known: Known
    acts: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    def good(self, rng: random.Random, timeout_us: int = 0) -> bytes:
        """A request by REST."""
        headers, body = rest_request(
            self.known, rng.randrange(16), "v", encoded=rng.random() < 0.5, timeout_us=timeout_us
        )
        return post(f"/v2/models/{self.known.model}/infer", headers, len(body)) + body

    def infer(self, rng: random.Random, timeout_us: int = 0) -> Any:
        """A call by gRPC that has begun."""
        content = grpc_request(self.known, 0, "v", encoded=False, timeout_us=timeout_us)
        return self.channel.unary_unary(METHOD).future(content, timeout=30)


def break_off(victim: Victim, rng: random.Random) -> None:
    """Half a request, or a whole one whose answer nobody reads."""
    request = victim.good(rng)
    abandon(victim.port, [request[: rng.choice([1, 40, len(request) // 2, len(request)])]])


def cancel(victim: Victim, rng: random.Random) -> None:
    """A call by gRPC that is cancelled at some moment."""
    call = victim.infer(rng)
    threading.Event().wait(rng.random() * 0.02)
    call.cancel()


def dawdle(victim: Victim, rng: random.Random) -> None:
    """A request in many small pieces, with pauses between, answered all the same."""
    request, pause = victim.good(rng), threading.Event()
    cuts = sorted(rng.sample(range(1, len(request)), 8))

    def pieces() -> Any:
        for start, end in zip([0, *cuts], [*cuts, len(request)], strict=True):
            yield request[start:end]
            pause.wait(0.1)

    found = converse(victim.port, pieces(), expect=1)  # type: ignore[arg-type]
    statuses = [answer.status for answer in found.http()]
    if len(statuses) != 1 or statuses[0] not in (200, 500, 503):
        victim.problems.append(f"a slow client got {statuses}")


def send_nonsense(victim: Victim, rng: random.Random) -> None:
    """Bytes, or a good request with some bytes changed; no answer may be an error of the server."""
    request = bytearray(victim.good(rng))
    if rng.random() < 0.3:
        request = bytearray(rng.randbytes(rng.randrange(1, 3000)))
    for _ in range(rng.randrange(1, 20)):
        request[rng.randrange(min(len(request), 600))] = rng.randrange(256)
    for answer in converse(victim.port, [bytes(request)]).http():
        if answer.status == 500 and b"the engine failed" not in answer.body:
            victim.problems.append(f"nonsense got {answer.body[:200]!r}")


def be_late(victim: Victim, rng: random.Random) -> None:
    """A deadline that nobody can meet."""
    found = converse(victim.port, [victim.good(rng, timeout_us=1)], expect=1).http()
    if [answer.status for answer in found] not in ([503], [500]):
        victim.problems.append(f"an impossible deadline got {[a.status for a in found]}")
    call = victim.infer(rng, timeout_us=1)
    if call.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL):
        victim.problems.append(f"an impossible deadline got {call.code()}")


ACTS: tuple[Callable[[Victim, random.Random], None], ...] = (
    *(break_off, cancel, dawdle),
    *(send_nonsense, be_late),
)


def misbehave(victim: Victim, number: int, until_s: float, per_s: float) -> None:
    """One vandal."""
    rng, pause = random.Random(number), threading.Event()
    while time.monotonic() < until_s:
        act = rng.choice(ACTS)
        try:
            act(victim, rng)
        except (HangError, OSError) as error:
            victim.problems.append(f"{act.__name__}: {error!r}")
        victim.acts[act.__name__] += 1
        pause.wait(rng.random() * 2 / per_s)


def main(given: dict[str, Any]) -> dict[str, Any]:
    """Let them loose for so many seconds, and report."""
    known = Known.load(Path(given["known"]))
    with grpc.insecure_channel(f"127.0.0.1:{given['grpc_port']}") as channel:
        victim = Victim(given["port"], channel, known)
        until_s = time.monotonic() + given["seconds"]
        threads = [
            threading.Thread(target=misbehave, args=(victim, number, until_s, given["per_s"]))
            for number in range(3)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return {"acts": victim.acts, "problems": victim.problems[:20]}


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
