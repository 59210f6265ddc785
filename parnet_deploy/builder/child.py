"""A child process that reports events, one JSON object a line, and can be asked to end."""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import parnet_deploy

from ..machine.ending import signal_name

GRACE_S = 2.0  # for a child that was asked to end, before it is killed
IDLE_S = 5.0
EXIT_S = 60.0  # for a child that has closed its output
_TAIL_BYTES = 4000


class Ended(NamedTuple):
    """How a child ended: its status (negative for a signal) and the end of its standard error."""

    status: int
    errors: str
    timed_out: bool

    @property
    def signal_name(self) -> str | None:
        """SIGSEGV and the like, if a signal ended it."""
        if self.status >= 0:
            return None
        return signal_name(-self.status)


def run_child(
    module: str,
    arguments: Sequence[str],
    folder: Path,
    *,
    on_event: Callable[[dict[str, Any]], str | None],
    on_idle: Callable[[], None] = lambda: None,
    timeout_s: float | None = None,
) -> Ended:
    """Run ``python -m module`` until it ends.

    Whatever ends this call early (an interrupt, an error of ``on_event``) ends the child too.

    Args:
        module: A module of this package.
        arguments: Its command line.
        folder: Its working directory, where its standard error is kept.
        on_event: Called with each event; a string that it returns is the child's next input line,
            and the empty string the end of its input.
        on_idle: Called when nothing was reported for ``IDLE_S``.
        timeout_s: End the child so long after its start, or after its last input line.
    """
    errors = folder / "stderr.txt"
    with errors.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            cwd=folder,
            env=_environment(),
            start_new_session=True,  # Ctrl-C reaches this process, which ends the child
        )
    asked, timed_out = True, False
    limit = _Limit(timeout_s)
    try:
        for line in _lines(process, limit):
            if line is None:
                on_idle()
                continue
            event = _event(line)
            answer = on_event(event) if event is not None else None
            if answer is not None:
                _answer(process, answer)
                limit.restart()
        asked = False
    except TimeoutError:
        timed_out = True
    finally:
        _end(process, asked=asked)
    return Ended(process.returncode, _tail(errors), timed_out)


def _environment() -> dict[str, str]:
    """This process's, with the package itself found wherever it was imported from."""
    root = str(Path(parnet_deploy.__file__).parents[1])
    path = os.environ.get("PYTHONPATH", "")
    return {**os.environ, "PYTHONPATH": f"{path}{os.pathsep}{root}" if path else root}


class _Limit:
    """Time that is left; restarted when the child is given something to do."""

    def __init__(self, limit_s: float | None) -> None:
        self._limit_s = float("inf") if limit_s is None else limit_s
        self.restart()

    def restart(self) -> None:
        self._end = time.monotonic() + self._limit_s

    @property
    def left_s(self) -> float:
        return self._end - time.monotonic()


def _lines(process: subprocess.Popen[bytes], limit: _Limit) -> Iterator[bytes | None]:
    """Lines of the child's output; None when there was nothing for a while.

    Raises:
        TimeoutError: The limit is reached.
    """
    output = process.stdout
    if output is None:
        return
    rest = b""
    with selectors.DefaultSelector() as selector:
        selector.register(output, selectors.EVENT_READ)
        while True:
            if limit.left_s <= 0:
                raise TimeoutError
            if not selector.select(min(IDLE_S, limit.left_s)):
                yield None
                continue
            data = os.read(output.fileno(), 65536)
            if not data:
                return
            *lines, rest = (rest + data).split(b"\n")
            yield from lines


def _event(line: bytes) -> dict[str, Any] | None:
    """None for a line that a dying child did not finish."""
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) else None


def _answer(process: subprocess.Popen[bytes], line: str) -> None:
    if process.stdin is None:
        return
    with suppress(BrokenPipeError):  # it died; its status says how
        if line:
            process.stdin.write(f"{line}\n".encode())
            process.stdin.flush()
        else:
            process.stdin.close()


def _end(process: subprocess.Popen[bytes], *, asked: bool) -> None:
    """Wait for a child that closed its output, or ask it to end; kill it if it does neither."""
    for pipe in (process.stdin, process.stdout):
        with suppress(BrokenPipeError):
            if pipe is not None:
                pipe.close()
    if asked:
        process.terminate()
    try:
        process.wait(GRACE_S if asked else EXIT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _tail(path: Path) -> str:
    data = path.read_bytes()[-_TAIL_BYTES:].decode("utf-8", "replace")
    return " | ".join(line.strip() for line in data.splitlines()[-10:] if line.strip())
