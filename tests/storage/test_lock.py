"""Two writers, and readers while a writer commits."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from parnet_deploy.deployment import Deployment
from parnet_deploy.errors import DeploymentChangedError, DeploymentError
from parnet_deploy.storage import journal, names
from parnet_deploy.storage.lock import WriterLock
from tests.storage.lock_holder import other_process_holds
from tests.storage.states import NEW, OLD, SPEC, content, write_state

ROOT = Path(__file__).parents[2]
LIMIT_S = 60.0  # only so that a broken test ends; nothing waits this long


def test_second_writer_is_told_who_holds_it(old: Path) -> None:
    lines: list[str] = []
    with other_process_holds(old) as process:
        with (
            pytest.raises(DeploymentError, match="expected no other writer") as caught,
            Deployment.edit(old, wait_s=0.05, on_wait=lines.append),
        ):
            pass
        assert f"process {process.pid} on " in str(caught.value)
        assert [f"process {process.pid} on " in line for line in lines] == [True]
        assert "waiting up to 0.05 s" in lines[0]
        assert content(Deployment.open(old)) == OLD, "readers do not wait"


def test_second_writer_waits_for_the_first(old: Path) -> None:
    with other_process_holds(old) as process, ThreadPoolExecutor() as pool:
        waiting = Event()

        def second() -> None:
            with Deployment.edit(old, wait_s=LIMIT_S, on_wait=lambda _: waiting.set()) as txn:
                txn.describe(labels=["x", "y", "z"])

        done = pool.submit(second)
        assert waiting.wait(LIMIT_S)
        assert not done.done()
        process.communicate()
        done.result(LIMIT_S)
    assert Deployment.open(old).labels == ("x", "y", "z")


def test_killed_writer_frees_the_lock(old: Path) -> None:
    with other_process_holds(old) as process:
        process.kill()
        process.wait()
        assert list(old.glob(names.STAGING_PREFIX + "*"))
        with Deployment.edit(old, wait_s=0):
            assert len(list(old.glob(names.STAGING_PREFIX + "*"))) == 1


def test_two_threads_exclude_each_other(old: Path) -> None:
    """Each adds one to a number that it read; none is lost."""
    with Deployment.edit(old) as txn:
        txn.describe(source={"count": 0})

    def add_one(_: int) -> None:
        with Deployment.edit(old, wait_s=LIMIT_S) as txn:
            txn.describe(source={"count": Deployment.open(old).source["count"] + 1})

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(add_one, range(12)))
    assert Deployment.open(old).source["count"] == 12


class PausedWriter:
    """A commit that stops just before it puts a given file in place, until it is let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, path: Path, before: str) -> None:
        self.paused, self.go = Event(), Event()
        self.readers_waiting = Event()
        replace, acquire = os.replace, WriterLock.acquire

        def pausing(source: Any, target: Any) -> None:
            if Path(target) == path / before:
                self.paused.set()
                self.go.wait(LIMIT_S)
            replace(source, target)

        def noticing(lock: WriterLock, wait_s: float) -> bool:
            taken = acquire(lock, min(wait_s, 0.01))
            if not taken:
                self.readers_waiting.set()
            return taken

        monkeypatch.setattr(os, "replace", pausing)
        monkeypatch.setattr(WriterLock, "acquire", noticing)


@pytest.mark.parametrize("before", ["fused.safetensors", "plans/one-cpu/all.onnx", names.MANIFEST])
def test_reader_that_comes_during_a_commit_waits_and_sees_the_new(
    old: Path, before: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = Deployment.open(old)
    writer = PausedWriter(monkeypatch, old, before)
    with ThreadPoolExecutor() as pool:
        commit = pool.submit(write_state, old, NEW)
        assert writer.paused.wait(LIMIT_S)
        fresh = pool.submit(lambda: content(Deployment.open(old)))
        stale = pool.submit(lambda: content(snapshot))
        assert writer.readers_waiting.wait(LIMIT_S)
        assert not fresh.done()
        writer.go.set()
        commit.result(LIMIT_S)
        assert fresh.result(LIMIT_S) == NEW
        with pytest.raises(DeploymentChangedError):
            stale.result(LIMIT_S)


def test_commit_that_never_ends_is_reported(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = PausedWriter(monkeypatch, old, names.MANIFEST)
    with ThreadPoolExecutor() as pool:
        commit = pool.submit(write_state, old, NEW)
        assert writer.paused.wait(LIMIT_S)
        with pytest.raises(DeploymentError, match=rf"commit by process {os.getpid()} .+not end"):
            journal.settle(old, wait_s=0.0)
        writer.go.set()
        commit.result(LIMIT_S)


def test_readers_see_whole_states_only(tmp_path: Path) -> None:
    """A process rewrites two files that must agree, again and again, while this one reads."""
    path = tmp_path / "model"
    script = (
        "import sys; from pathlib import Path\n"
        "from tests.storage.states import write_state\n"
        "for i in range(int(sys.argv[2])):\n"
        "    n = str(i).encode(); write_state(Path(sys.argv[1]), {'a': n, 'b/c': n * 3})\n"
    )
    write_state(path, {"a": b"0", "b/c": b"000"})
    command = [sys.executable, "-c", script, str(path), "40"]
    seen, changed = set(), 0
    with subprocess.Popen(command, cwd=ROOT) as writer:
        while True:
            last = writer.poll() is not None  # one more look after the writer has ended
            try:
                found = content(Deployment.open(path))
            except DeploymentChangedError:
                changed += 1
                continue
            assert found["b/c"] == found["a"] * 3
            seen.add(found["a"])
            if last:
                break
    assert writer.returncode == 0
    assert b"39" in seen


def test_reading_needs_no_lock_and_no_filelock(old: Path) -> None:
    script = (
        "import sys; from parnet_deploy.deployment import Deployment\n"
        "d = Deployment.open(sys.argv[1]); d.read_bytes('fused.safetensors'); d.verify()\n"
        "assert 'filelock' not in sys.modules and 'numpy' not in sys.modules"
    )
    (old / names.LOCK).unlink()
    subprocess.run([sys.executable, "-c", script, str(old)], cwd=ROOT, check=True)
    assert not (old / names.LOCK).exists()
    assert Deployment.open(old).spec == SPEC


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir], ids=["pipe", "directory"])
def test_who_holds_it_is_told_only_where_that_can_be(old: Path, make: Any) -> None:
    """What stands in the place of the file that names the holder stops nobody."""
    holder = old / names.LOCK_HOLDER
    make(holder)
    with (
        Deployment.edit(old, wait_s=0),
        pytest.raises(DeploymentError, match="got the lock of another process"),
        Deployment.edit(old, wait_s=0),
    ):
        pass
