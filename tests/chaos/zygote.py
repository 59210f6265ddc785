"""A process that has imported everything, and runs each command in a fork of itself.

A fork starts in milliseconds, so that hundreds of commands can be run, and killed. This process
computes nothing, so no thread is lost in a fork. Run as a module it reads requests from standard
input, one JSON object a line, and answers each by one line; see ``tests.chaos.commands``.

The descendants of a command that outlive it become children of this process, which waits until
the last of them has ended: none is left alone, and none stays a zombie.
"""

from __future__ import annotations

import ctypes
import faulthandler
import gc
import json
import os
import select
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from typing import IO, Any

from tests.chaos.faults import Fault

LIMIT_S = 120.0
"""After which a command counts as hung; only so that a broken test ends."""

PRELOADED = (
    "filelock",
    "onnxruntime",
    "torch",
    "rich.progress",
    *(f"parnet_deploy.cli.{v}" for v in ("fuse", "export", "calibrate", "build", "verify", "run")),
    *(f"parnet_deploy.cli.{v}" for v in ("bench", "inspect", "doctor")),
    "parnet_deploy.bench.bench_step",
    "parnet_deploy.bench.timeline_step",
    "parnet_deploy.builder.build",
    "parnet_deploy.builder.verify_step",
    "parnet_deploy.classify",
    "parnet_deploy.export.export_step",
    "parnet_deploy.export.fuse_step",
    "parnet_deploy.quantize.quantize_step",
    "parnet_deploy.runtime.onnxruntime.cpu",
    "parnet_deploy.runtime.session",
    "parnet_deploy.triton.export",
)


def serve() -> None:
    """Answer requests until the input ends."""
    adopt = 36  # PR_SET_CHILD_SUBREAPER
    ctypes.CDLL(None).prctl(adopt, 1, 0, 0, 0)
    for name in PRELOADED:
        import_module(name)
    gc.freeze()
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Run one request in a child: what it printed, how and when it ended, and what it left running.

    ``kill_s`` kills the child and all of its group so long after its start, or after its first
    change on the disk if ``from_change`` is set.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        reader, writer = os.pipe()
        started = time.monotonic()
        pid = os.fork()
        if pid == 0:
            os.close(reader)
            _child(request, out, err, writer)
        os.close(writer)
        changes, hung, first = _wait(pid, reader, request)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        ended = time.monotonic()
        orphans = _adopted()
        os.close(reader)
        out.seek(0)
        err.seek(0)
        return {
            "status": status,
            "out": out.read().decode("utf-8", "replace"),
            "err": err.read().decode("utf-8", "replace"),
            "changes": changes,
            "seconds": ended - started,
            "writing_s": ended - first,
            "hung": hung,
            "orphans": orphans,
        }


def _wait(pid: int, reader: int, request: dict[str, Any]) -> tuple[int, bool, float]:
    """Wait until the child has ended, and kill it when it is due.

    Returns: How many changes it made, whether it hung, and when it made the first or ended.
    """
    child = os.pidfd_open(pid)
    try:
        changes, kill_s, late = 0, request.get("kill_s"), request.get("from_change")
        if kill_s is None or late:
            select.select([child, reader], [], [], LIMIT_S)
        first = time.monotonic()
        if kill_s is not None:
            select.select([child], [], [], kill_s)
            _kill(pid)
        hung = not select.select([child], [], [], LIMIT_S)[0]
        if hung:
            os.kill(pid, signal.SIGABRT)  # says where, see faulthandler
            select.select([child], [], [], LIMIT_S)
            _kill(pid)
            select.select([child], [], [])
        while select.select([reader], [], [], 0)[0] and (data := os.read(reader, 65536)):
            changes += len(data)
        return changes, hung, first
    finally:
        os.close(child)


def _kill(pid: int) -> None:
    for kill in (os.killpg, os.kill):  # it may not lead a group yet
        try:
            kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def _adopted() -> int:
    """Wait for every descendant that was left; how many had to be killed, for they did not end."""
    killed = 0
    deadline = time.monotonic() + LIMIT_S / 4
    while True:
        try:
            found, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return killed
        if found:
            continue
        left = _children()
        handles = [os.pidfd_open(pid) for pid in left]
        select.select(handles, [], [], max(0.0, deadline - time.monotonic()))
        for handle in handles:
            os.close(handle)
        if time.monotonic() >= deadline:
            for pid in left:
                os.kill(pid, signal.SIGKILL)
                killed += 1


def _children() -> list[int]:
    with open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as file:
        return [int(pid) for pid in file.read().split()]


def _child(request: dict[str, Any], out: IO[bytes], err: IO[bytes], writer: int) -> None:
    """Become the command; never returns."""
    code = 1
    try:
        os.setsid()
        os.dup2(out.fileno(), 1)
        os.dup2(err.fileno(), 2)
        faulthandler.enable(err)
        os.chdir(request["cwd"])
        os.environ.update(request.get("env", {}))
        tempfile.tempdir = None
        os.set_blocking(writer, False)
        Fault(**request["fault"]).arm(lambda: _note(writer))
        code = _call(ACTIONS[request["action"]], request)
    finally:
        os._exit(code)


def _note(writer: int) -> None:
    with suppress(BlockingIOError):  # more than anybody counts
        os.write(writer, b".")


def _call(action: Callable[[dict[str, Any]], object], request: dict[str, Any]) -> int:
    """The exit code, as Python itself would give it."""
    code = 0
    try:
        action(request)
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return code


def _command(request: dict[str, Any]) -> None:
    import torch

    from parnet_deploy.cli.main import cli

    torch.set_num_threads(1)
    cli(args=request["args"], prog_name="parnet-deploy")


def _look(request: dict[str, Any]) -> None:
    from tests.chaos.state import look

    print(json.dumps(look(request["path"], request.get("plans"))))


def _run_function(request: dict[str, Any]) -> None:
    """``module:function`` with plain arguments; what it returns is printed as JSON."""
    module, _, function = request["entry"].partition(":")
    print(json.dumps(getattr(import_module(module), function)(*request["arguments"])))


ACTIONS = {"command": _command, "look": _look, "function": _run_function}

if __name__ == "__main__":
    serve()
