"""The parent's side of one arm's process: start it, ask it, end it."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import IO, Any

from ..errors import BackendError, MissingExtraError, ParnetDeployError
from ..machine.ending import ending
from .arm import ArmSpec

GRACE_S = 5.0  # for a child that was told to close
_TAIL_BYTES = 4000
_BOOT = (
    "import sys; from multiprocessing.connection import Connection; "
    "parent = Connection(int(sys.argv[1])); sys.path[:] = parent.recv(); "
    "from parnet_deploy.contest.worker import main; main(parent)"
)
"""Isolated from the current directory and PYTHONPATH, then given the very paths of the parent."""

_LOG = logging.getLogger(__name__)


class ArmError(Exception):
    """An arm cannot go on: why, and the error to raise if it cannot be done without."""

    def __init__(self, reason: str, error: ParnetDeployError) -> None:
        super().__init__(reason)
        self.reason, self.error = reason, error


class ArmProcess:
    """A fresh interpreter that holds one arm. Idle, it sleeps.

    Owns: the process, its socket and the file with what it printed. It has a session of its own,
    so Ctrl-C reaches the parent only; ``kill`` ends whatever it started, too.
    """

    def __init__(self, spec: ArmSpec) -> None:
        self.spec = spec
        ours, theirs = socket.socketpair()
        self._child = Connection(ours.detach())
        self._printed: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-c", _BOOT, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=self._printed,
                stderr=self._printed,
                pass_fds=[theirs.fileno()],
                env=_environment(spec),
                start_new_session=True,
            )
        with suppress(OSError):  # it died already; the first answer will say so
            self._child.send([os.path.abspath(path) for path in sys.path])

    @property
    def pid(self) -> int:
        """Of the process, and of its group."""
        return self._process.pid

    def ask(self, verb: str, *arguments: Any, limit_s: float) -> Any:
        """Send a message and wait for the answer.

        Raises:
            ArmError: It raised, died, or did not answer in time.
        """
        try:
            self._child.send((verb, arguments))
            if not self._child.poll(limit_s):
                raise self._error("", f"no answer to {verb!r} within {limit_s:g} s")
            outcome, *answer = self._child.recv()
        except (EOFError, OSError):
            raise self._error("", self._ending()) from None
        if outcome == "ok":
            return answer[0]
        kind, text, trace = answer
        _LOG.debug("arm %s: %s", self.spec.name, trace)
        raise self._error(kind, text)

    def ask_to_close(self) -> None:
        """Tell it to free what it owns and to end; wait for that a moment."""
        with suppress(EOFError, OSError):
            self._child.send(("close", ()))
            while self._child.poll(GRACE_S):
                self._child.recv()

    def kill(self) -> None:
        """End it and whatever it started, at once. Idempotent."""
        self._child.close()
        if self._process.returncode is None:
            self._kill_group()
            self._process.wait()
        self._printed.close()

    def _error(self, kind: str, text: str) -> ArmError:
        missing = kind == ModuleNotFoundError.__name__
        if missing and self.spec.extra is not None and text != __name__.partition(".")[0]:
            absent = MissingExtraError(text, self.spec.extra)
            return ArmError(str(absent), absent)
        reason = f"module {text}: not found" if missing else text
        return ArmError(reason, _kinds().get(kind, BackendError)(f"arm {self.spec.name}: {reason}"))

    def _ending(self) -> str:
        """How it ended, and the last it said."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(GRACE_S)
        status = self._process.returncode
        how = f"its process {'stopped talking' if status is None else ending(status)}"
        self._kill_group()
        lines = list(self._last_lines())
        return f"{how}: {' | '.join(lines)}" if lines else how

    def _last_lines(self) -> Iterator[str]:
        self._printed.seek(0, os.SEEK_END)
        self._printed.seek(max(0, self._printed.tell() - _TAIL_BYTES))
        text = self._printed.read().decode("utf-8", "replace")
        yield from [line.strip() for line in text.splitlines() if line.strip()][-3:]

    def _kill_group(self) -> None:
        with suppress(ProcessLookupError, PermissionError):  # nobody is left in it
            os.killpg(self._process.pid, signal.SIGKILL)


def _environment(spec: ArmSpec) -> dict[str, str]:
    """This process's, without threads that spin while they wait, unless somebody wants them."""
    found = {"OMP_WAIT_POLICY": "PASSIVE", **os.environ, **spec.environment}
    return {name: value for name, value in found.items() if value is not None}


def _kinds() -> dict[str, type[ParnetDeployError]]:
    """Our errors by name, but for those that are not made of one message."""
    found, todo = dict[str, type[ParnetDeployError]](), [ParnetDeployError]
    while todo:
        kind = todo.pop()
        found[kind.__name__] = kind
        todo += kind.__subclasses__()
    del found[MissingExtraError.__name__]
    return found
