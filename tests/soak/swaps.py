"""Who runs the server: new deployments, some that cannot be opened, and clients that are killed."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from parnet_deploy.deployment import Deployment
from tests.serve.load.processes import Running, start_clients
from tests.soak.metrics import metric


class Operator:
    """Does something to a server every ``every_s`` seconds while it is in ``with``.

    ``acts`` counts what. Every swap leaves the same network, so every answer stays the same.
    """

    def __init__(self, running: Running, deployment: Path, known: Path, *, every_s: float) -> None:
        self.acts: Counter[str] = Counter()
        self._number = 0
        self._running, self._path, self._known = running, deployment, known
        self._every_s, self._stop, self._random = every_s, threading.Event(), random.Random(3)
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Operator:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        acts: list[Callable[[], None]] = []
        while not self._stop.wait(self._every_s * (0.5 + self._random.random())):
            if not acts:  # each in turn, in an order of chance
                acts = [self.swap, self.swap, self.reload, self.fail_to_swap, self.kill_clients]
                self._random.shuffle(acts)
            act = acts.pop()
            act()
            self.acts[act.__name__] += 1

    def warm_up(self, swaps: int) -> None:
        """So many swaps, one after the other, each until it is done, or failed by an injection."""
        until_s = time.monotonic() + 60
        for number in range(1, swaps + 1):
            self.swap()
            while metric(self._running, "parnet_serve_swaps_total") < number:
                assert time.monotonic() < until_s, "swaps take too long"
                self._stop.wait(0.02)

    def swap(self) -> None:
        """Another deployment with the same weights."""
        self._number += 1
        with Deployment.edit(self._path) as txn:
            txn.describe(source={"soak": self._number})
        self.reload()

    def reload(self) -> None:
        """SIGHUP, whatever has changed."""
        os.kill(self._running.pid, signal.SIGHUP)

    def fail_to_swap(self) -> None:
        """SIGHUP while there is no deployment: what was served goes on."""
        away = self._path.with_name("away")
        self._path.rename(away)
        try:
            self.reload()
            self._stop.wait(0.5)
        finally:
            away.rename(self._path)

    def kill_clients(self) -> None:
        """A process with eight clients, killed while they ask."""
        process = start_clients(self._running, self._known, {"rest": 5, "grpc": 3, "rate": 20.0})
        with process:
            self._stop.wait(3 + 2 * self._random.random())
            process.kill()
            process.communicate()
