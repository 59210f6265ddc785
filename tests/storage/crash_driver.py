"""Kill a writer, or a recovery, at every step it takes on the disk; print what was left.

Run as ``python -m tests.storage.crash_driver commit|recovery call|line DIRECTORY``. A child process
for each point: it counts the calls that change the disk (or, finer, the lines that it executes in
the modules that touch the disk) and sends itself SIGKILL at the k-th, for k = 1, 2, ... until it
gets through. SIGKILL cannot be caught, so no clean-up runs. ``fsync`` does nothing here: it matters
for a power cut only, and the order of those calls has its own test.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import filelock  # noqa: F401  # imported before the forks, not in each child

from parnet_deploy.deployment import Deployment
from parnet_deploy.storage import names
from tests.storage.states import NEW, OLD, content, write_state

DISK_MODULES = ("journal.py", "transaction.py", "files.py", "lock.py")


DISK_CALLS = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "fcntl.flock")


class Killer:
    """Counts points and kills this process at the chosen one."""

    def __init__(self, at: int) -> None:
        self._left = at

    def point(self) -> None:
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def on_call(self, event: str, _: object) -> None:
        if event in DISK_CALLS:
            self.point()

    def on_line(self, frame: FrameType, event: str, _: Any) -> Any:
        path = frame.f_code.co_filename
        if "storage" not in path or not path.endswith(DISK_MODULES):
            return None
        if event == "line":
            self.point()
        return self.on_line


def died(action: Callable[[], object], at: int, unit: str) -> bool:
    """Whether a child that runs the action was killed at that point; False if it got through."""
    pid = os.fork()
    if pid == 0:
        try:
            if unit == "call":
                sys.addaudithook(Killer(at).on_call)
            else:
                sys.settrace(Killer(at).on_line)
            action()
            os._exit(0)
        finally:
            os._exit(1)
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        return True
    if os.WEXITSTATUS(status):
        raise RuntimeError(f"the child failed by itself at point {at}")
    return False


def state(path: Path) -> str:
    """Open what is left and name it: old, new, or what is wrong with it."""
    deployment = Deployment.open(path)
    found, integrity = content(deployment), deployment.verify()
    if not integrity or integrity.foreign:
        return f"bad: {integrity}"
    return "old" if found == OLD else "new" if found == NEW else f"half: {sorted(found)}"


def crash_commits(base: Path, unit: str) -> list[str]:
    """State after a commit that died at each point."""
    write_state(base / "template", OLD)
    return _each_point(base, base / "template", lambda path: write_state(path, NEW), unit)


def crash_recoveries(base: Path, unit: str) -> list[str]:
    """State after a recovery that died at each point; the commit died at its commit point."""
    pending = base / "pending"
    for at in range(1, 10_000):
        shutil.rmtree(pending, ignore_errors=True)
        write_state(pending, OLD)
        if not died(lambda: write_state(pending, NEW), at, "call"):
            break
        if (pending / names.JOURNAL).exists():
            return _each_point(base, pending, Deployment.open, unit)
    raise RuntimeError("no point left a journal behind")


def _each_point(
    base: Path, template: Path, action: Callable[[Path], object], unit: str
) -> list[str]:
    states: list[str] = []
    path = base / "work"
    alive = False
    while not alive:
        shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(template, path)
        alive = not died(lambda: action(path), len(states) + 1, unit)
        states.append(state(path))
        with Deployment.edit(path):  # the next writer throws away what the dead one staged
            pass
        left = [name for name in os.listdir(path) if name.startswith(".") and name != names.LOCK]
        if left:
            states[-1] = f"left behind: {left}"
    return states


if __name__ == "__main__":
    os.fsync = lambda _: None
    run = {"commit": crash_commits, "recovery": crash_recoveries}[sys.argv[1]]
    json.dump(run(Path(sys.argv[3]), sys.argv[2]), sys.stdout)
