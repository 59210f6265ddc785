"""Arms that compute next to nothing, and some that misbehave; opened in processes of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from typing import Any

import numpy as np

from parnet_deploy.contest.arm import Array, OpenedArm, SelfCheck
from parnet_deploy.errors import CheckFailedError, EngineLoadError, MissingExtraError

HERE = __name__


def answer(image: Array) -> Array:
    """What every toy network answers: (N, C, H, W) -> (N, 3)."""
    return image.reshape(len(image), -1)[:, :3] * 2


def open_toy(**facts: Any) -> OpenedArm:
    """An arm that is right, and tells its options."""
    return OpenedArm(run=answer, note="a toy", facts={**facts, "pid": os.getpid()}, model_bytes=7)


def open_scaled(factor: float, after: int = 0) -> OpenedArm:
    """Logits times a factor, from some call on."""
    calls = iter(range(10**9))

    def run(image: Array) -> Array:
        return answer(image) * (factor if next(calls) >= after else 1)

    return OpenedArm(run=run, note="", load_ms=12.5)


def open_environment() -> OpenedArm:
    """Tells its environment."""
    return OpenedArm(run=answer, note="", facts=dict(os.environ))


def open_wrong(*, classes: int, **others: Any) -> OpenedArm:
    """Logits of the right shape that are not the deployment's."""
    return OpenedArm(run=lambda image: image.reshape(len(image), -1)[:, :classes], note="wrong")


def open_checked(
    error: float = 0.0,
    limit: float = 1e-3,
    rows: int | None = None,
    fill: float = 1.0,
    precision: str = "fp32",
) -> OpenedArm:
    """A network of another kind, with a check of its own."""

    def run(image: Array) -> Array:
        return np.full((rows or len(image), 4), fill, np.float32)

    check = SelfCheck(what="against a sum by hand", error=error, limit=limit)
    return OpenedArm(run=run, note="", self_check=check, precision=precision)


def open_raising(kind: str) -> OpenedArm:
    """Cannot be opened."""
    if kind == "module":
        import no_such_package  # noqa: F401
    raise {
        "extra": MissingExtraError("torch", "export"),
        "ours": EngineLoadError("engine x: cannot be loaded."),
        "check": CheckFailedError("canary: another answer."),
        "bug": KeyError("colour"),
    }[kind]


def open_dying(how: str, after: int = 0) -> OpenedArm:
    """Raises, exits, is killed, or hangs: at once, or after some calls."""
    calls = iter(range(10**9))

    def end() -> None:
        if how == "raises":
            raise ArithmeticError("the pool is gone")
        if how == "exits":
            os.write(2, b"first\nlast words\n")
            os._exit(3)
        if how == "hangs":
            threading.Event().wait()
        os.kill(os.getpid(), signal.SIGKILL)

    def run(image: Array) -> Array:
        if next(calls) >= after:
            end()
        return answer(image)

    if after < 0:
        end()
    return OpenedArm(run=run, note="", facts={"pid": os.getpid()})


def open_with_grandchild() -> OpenedArm:
    """Starts a process that would run for ever, as a compiler's workers do."""
    forever = [sys.executable, "-c", "import threading; threading.Event().wait()"]
    process = subprocess.Popen(forever)
    return OpenedArm(run=answer, note="", facts={"grandchild": process.pid})


def open_talkative() -> OpenedArm:
    """Prints where a protocol on stdout would break."""
    print("hello", flush=True)
    return open_toy()


def make_killed() -> bytes:
    """A model that is never made: ends as the kernel ends a process when memory runs out."""
    os.kill(os.getpid(), signal.SIGKILL)
    return b""
