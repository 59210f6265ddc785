"""The child's side of a contest: open one arm, answer once, then run as often as it is asked.

Imports the standard library only, so that what an arm's imports take can be told. Between two
messages it sleeps in a read. It ends when its parent does, however that ends.
"""

from __future__ import annotations

import gc
import math
import os
import select
import signal
import threading
import time
import traceback
from collections.abc import Callable
from importlib import import_module
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .arm import Array, OpenedArm


def main(parent: Connection) -> None:
    """Serve the parent until it says close or is gone. The caller keeps the connection open."""
    os.set_inheritable(parent.fileno(), False)  # or a grandchild would hold it open
    watch = threading.Thread(target=_end_with_parent, args=(parent.fileno(),), daemon=True)
    watch.start()
    if not serve(parent):
        _end_group()


def serve(parent: Connection) -> bool:
    """Answer messages (verb, arguments) with ("ok", answer) or ("error", kind, text, traceback).

    Returns: Whether it was told to close; False: the parent is gone.
    """
    worker = _Worker()
    verbs: dict[str, Callable[..., Any]] = {
        "open": worker.open,
        "first": worker.first,
        "warm_up": worker.warm_up,
        "turn": worker.turn,
        "close": worker.close,
    }
    verb, answer = "", tuple[Any, ...]()
    while verb != "close":
        try:
            verb, arguments = parent.recv()
        except (EOFError, ConnectionError):
            return False
        try:
            answer = "ok", verbs[verb](*arguments)
        except Exception as error:  # whatever an arm raises is the parent's to judge
            answer = "error", *_describe(error), traceback.format_exc()
        try:
            parent.send(answer)
        except ConnectionError:
            return False
    return True


class _Worker:
    """One arm. ``arm`` and ``image`` are there once ``open`` and ``first`` were called."""

    arm: OpenedArm
    image: Array

    def open(self, entry: str, options: dict[str, Any]) -> Any:
        """Import the arm's module and open the arm; everything about it but its functions."""
        self._memory_mib = _memory_mib()
        module, _, function = entry.partition(":")
        started = time.perf_counter_ns()
        open_arm = getattr(import_module(module), function)
        imported = time.perf_counter_ns()
        self.arm = arm = open_arm(**options)
        opened = time.perf_counter_ns()
        check = arm.self_check
        return {
            "note": arm.note,
            "precision": arm.precision,
            "facts": dict(arm.facts),
            "import_ms": (imported - started) / 1e6,
            "load_ms": (opened - imported) / 1e6 if arm.load_ms is None else arm.load_ms,
            "model_bytes": arm.model_bytes,
            "parameters": arm.parameters,
            "macs": arm.macs,
            "self_check": None if check is None else (check.what, check.error, check.limit),
        }

    def first(self, image: Array) -> Any:
        """Keep the image and answer it: how long that took, and the logits."""
        self.image = image
        started = time.perf_counter_ns()
        logits = self.arm.run(image)
        return (time.perf_counter_ns() - started) / 1e6, logits

    def warm_up(self, calls: int) -> Any:
        """Run untimed; the last logits, and by how much memory grew since before the imports."""
        for _ in range(calls):
            logits = self.arm.run(self.image)
        gc.collect()
        gc.freeze()  # what imports left behind is not walked through again in a timed call
        before, now = self._memory_mib, _memory_mib()
        return logits, None if before is None or now is None else now - before

    def turn(self, lead: int, calls: int, period_s: float | None) -> Any:
        """Time some calls one by one, after untimed ones; with a period they begin on its grid.

        Returns: Nanoseconds of each call, and how many points of the grid passed in timed calls.
        """
        run, image, clock = self.arm.run, self.image, time.perf_counter_ns
        samples, late, due = [], 0, time.perf_counter()
        for i in range(lead + calls):
            if period_s is not None:
                missed = max(0, math.floor((time.perf_counter() - due) / period_s))
                late += missed if i > lead else 0
                due += period_s * (1 + missed)
                time.sleep(max(0.0, due - time.perf_counter()))
            started = clock()
            run(image)
            samples.append(clock() - started)
        if period_s is not None:
            late += max(0, math.floor((time.perf_counter() - due) / period_s))
        return samples[lead:], late

    def close(self) -> Any:
        """Free what the arm owns."""
        arm = getattr(self, "arm", None)
        if arm is not None:
            arm.close()


def _describe(error: Exception) -> tuple[str, str]:
    """The name of the error's class if it is one of ours or a missing package, and what it says."""
    from ..errors import ParnetDeployError

    if isinstance(error, ParnetDeployError):
        return type(error).__name__, str(error)
    if isinstance(error, ModuleNotFoundError) and error.name:
        return ModuleNotFoundError.__name__, error.name.partition(".")[0]
    return "", f"{type(error).__name__}: {error}".strip(": ")


def _memory_mib() -> float | None:
    """Resident memory of this process, libraries included, where the system tells."""
    try:
        rows = Path("/proc/self/smaps_rollup").read_text(encoding="ascii").splitlines()
        return next(int(row.split()[1]) for row in rows if row.startswith("Rss:")) / 1024
    except (OSError, StopIteration):
        return None


def _end_with_parent(fd: int) -> None:
    """Sleep until the parent's end of the socket is closed; then end this process and its group."""
    waiting = select.poll()
    waiting.register(fd, 0)  # 0: nothing but the hang-up
    waiting.poll()
    _end_group()


def _end_group() -> None:
    """End this process, which leads its group, and all that it started."""
    os.killpg(os.getpid(), signal.SIGKILL)
