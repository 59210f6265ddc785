"""A commit happens whole or not at all: killed at any line, on a full disk, on a read-only one."""

from __future__ import annotations

import builtins
import errno
import io
import itertools
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from parnet_deploy.deployment import Deployment
from parnet_deploy.errors import DeploymentCorruptError, DeploymentError
from parnet_deploy.storage import names
from parnet_deploy.storage.document import seal
from tests.storage.states import NEW, OLD, content, write_state

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("unit", ["call", pytest.param("line", marks=pytest.mark.slow)])
@pytest.mark.parametrize(("what", "outcomes"), [("commit", {"old", "new"}), ("recovery", {"new"})])
def test_killed_at_any_point_leaves_old_or_new(
    what: str, outcomes: set[str], unit: str, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "tests.storage.crash_driver", what, unit, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    states = json.loads(done.stdout)
    assert set(states) == outcomes
    assert len(states) > 20, "the driver must have reached the code that writes"
    assert states == sorted(states, reverse=True), "once new, always new"
    assert states[-1] == "new"


class FaultyDisk:
    """Lets the first calls that change the disk pass and makes the k-th one fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, failing: int, code: int) -> None:
        self.calls = 0
        self._failing = failing
        self._code = code
        for name in ("replace", "fsync", "mkdir", "unlink", "open", "rmdir"):
            monkeypatch.setattr(os, name, self._wrap(getattr(os, name)))
        opened = self._wrap(io.open)
        monkeypatch.setattr(io, "open", opened)
        monkeypatch.setattr(builtins, "open", opened)

    def _wrap(self, call: Any) -> Any:
        def faulty(*args: Any, **kwargs: Any) -> Any:
            self.calls += 1
            if self.calls == self._failing:
                raise OSError(self._code, os.strerror(self._code))
            return call(*args, **kwargs)

        return faulty


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES])
def test_disk_error_at_every_call_leaves_old_or_new(code: int, tmp_path: Path) -> None:
    template = tmp_path / "template"
    write_state(template, OLD)
    outcomes: Counter[tuple[bool, str]] = Counter()
    for failing in itertools.count(1):
        path = tmp_path / f"at{failing}"
        shutil.copytree(template, path)
        message = ""
        with pytest.MonkeyPatch.context() as monkeypatch:
            disk = FaultyDisk(monkeypatch, failing, code)
            try:
                write_state(path, NEW)
            except DeploymentError as error:
                message = str(error)
        pending = (path / names.JOURNAL).exists()
        after = content(Deployment.open(path))
        assert after in (OLD, NEW)
        state = "new" if after == NEW else "old"
        outcomes[bool(message), state] += 1
        if message:
            assert str(path) in message
            assert os.strerror(code) in message
            expected = "recorded whole" if pending else "intact as it was before"
            assert expected in message or "cannot read it" in message
            assert pending == (state == "new"), "an error without a journal changed nothing"
        if disk.calls < failing:
            break
    assert outcomes[True, "old"] > 10
    assert outcomes[True, "new"] > 3
    assert outcomes[False, "old"] == 0, "no error, so the new state must be there"


def test_everything_is_on_disk_before_the_commit_point(
    old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not Path("/proc/self/fd").exists():
        pytest.skip("needs /proc to see which file is synced")
    events: list[tuple[str, str]] = []
    calls = {name: getattr(os, name) for name in ("fsync", "replace", "unlink")}

    def relative(path: object) -> str:
        text = os.path.relpath(str(path), old)
        parts = text.split("/")
        return "/".join(["STAGING", *parts[1:]]) if names.is_staging(parts[0]) else text

    def fsync(handle: int) -> None:
        events.append(("fsync", relative(os.readlink(f"/proc/self/fd/{handle}"))))
        calls["fsync"](handle)

    def replace(source: Any, target: Any) -> None:
        events.append(("replace", relative(target)))
        calls["replace"](source, target)

    def unlink(path: Any, **kwargs: Any) -> None:
        events.append(("unlink", relative(path) if kwargs.get("dir_fd") is None else "?"))
        calls["unlink"](path, **kwargs)

    for name, call in {"fsync": fsync, "replace": replace, "unlink": unlink}.items():
        monkeypatch.setattr(os, name, call)
    write_state(old, NEW)

    point = events.index(("replace", names.JOURNAL))
    synced = {path for event, path in events[:point] if event == "fsync"}
    staged = {f"STAGING/{name}" for name in (*NEW, names.MANIFEST, names.JOURNAL)}
    folders = {"STAGING", "STAGING/onnx", "STAGING/plans", "STAGING/plans/one-cpu", "."}
    assert synced == staged | folders
    touched = {path for event, path in events[:point] if event != "fsync"}
    assert touched == set(), "before the commit point the deployment is untouched"
    assert events[point + 1] == ("fsync", ".")
    manifest = events.index(("replace", names.MANIFEST))
    placed = [path for event, path in events[point + 1 : manifest] if event == "replace"]
    assert placed == sorted(NEW)
    assert ("fsync", "plans/one-cpu") in events[point:manifest]
    gone = events.index(("unlink", names.JOURNAL))
    assert ("fsync", ".") in events[manifest:gone]


MOUNTED = """
import pathlib, subprocess, sys
sys.path.insert(0, {root!r})
from parnet_deploy.deployment import Deployment
from parnet_deploy.errors import DeploymentError
from tests.storage.states import NEW, OLD, content, write_state
disk = pathlib.Path(sys.argv[1])
write_state(disk / "model", OLD)
try:
    write_state(disk / "model", {{**NEW, "onnx/big.onnx": bytes(1 << 20)}})
except DeploymentError as error:
    print(error)
assert content(Deployment.open(disk / "model")) == OLD
subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
try:
    write_state(disk / "model", NEW)
except DeploymentError as error:
    print(error)
assert content(Deployment.open(disk / "model")) == OLD
assert Deployment.open(disk / "model").verify()
"""


def test_really_full_and_really_read_only_disk(tmp_path: Path) -> None:
    """A tmpfs of 256 KiB in a mount namespace of its own; the test is not privileged."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = f"mount -t tmpfs -o size=256k tmpfs {disk}"
    run = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    if shutil.which("unshare") is None or subprocess.run([*run, mount], check=False).returncode:
        pytest.skip("needs unshare and the right to mount a tmpfs in a user namespace")
    script = tmp_path / "script.py"
    script.write_text(MOUNTED.format(root=str(ROOT)), encoding="utf-8")
    command = f"{mount} && exec {sys.executable} {script} {disk}"
    done = subprocess.run([*run, command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    full, read_only = done.stdout.splitlines()
    assert f"deployment {disk}/model: cannot write" in full
    assert "No space left on device" in full
    assert "intact as it was before. Free some space and run the command again." in full
    assert "Read-only file system" in read_only
    assert "Choose a directory on a writable file system" in read_only


def journal(old: Path, **changes: object) -> None:
    fields = {"schema_version": 1, "staging": ".staging-" + "0" * 16, "remove": [], "place": []}
    (old / names.JOURNAL).write_bytes(seal({**fields, **changes}))


@pytest.mark.parametrize(
    "changes",
    [
        {"staging": "../elsewhere"},
        {"staging": ".staging-../../../../tmp"},
        {"remove": ["../victim"]},
        {"remove": ["/etc/victim"]},
        {"remove": "fused.safetensors"},
        {"place": ["deployment.json"]},
        {"place": [["onnx"]]},
        {"place": None},
    ],
    ids=str,
)
def test_hostile_journal_is_refused(old: Path, changes: dict[str, object]) -> None:
    victim = old.parent / "victim"
    victim.write_bytes(b"precious")
    journal(old, **changes)
    with pytest.raises(DeploymentCorruptError, match=r"not a journal of this package\. Remove"):
        Deployment.open(old)
    (old / names.JOURNAL).unlink()
    assert victim.read_bytes() == b"precious"
    assert content(Deployment.open(old)) == OLD


def test_hostile_journal_cannot_reach_through_a_link(old: Path) -> None:
    outside = old.parent / "outside"
    outside.mkdir()
    (outside / "victim").write_bytes(b"precious")
    (old / "link").symlink_to(outside)
    journal(old, remove=["link/victim"])
    with pytest.raises(DeploymentCorruptError, match="leads outside"):
        Deployment.open(old)
    assert (outside / "victim").exists()


def test_edited_journal_is_refused(old: Path) -> None:
    journal(old)
    raw = (old / names.JOURNAL).read_bytes()
    (old / names.JOURNAL).write_bytes(raw.replace(b'"place": []', b'"place": ["a"]'))
    with pytest.raises(DeploymentCorruptError, match="does not match its sha256"):
        Deployment.open(old)


def test_deployment_copied_in_the_middle_of_a_commit_is_refused(old: Path) -> None:
    journal(old, place=["onnx/new.onnx"])
    with pytest.raises(DeploymentCorruptError, match="copied in part"):
        Deployment.open(old)


@pytest.mark.parametrize("kind", ["pipe", "directory"])
def test_something_else_in_the_place_of_a_journal_is_refused(old: Path, kind: str) -> None:
    (os.mkfifo if kind == "pipe" else os.mkdir)(old / names.JOURNAL)
    with pytest.raises(DeploymentCorruptError, match="not a journal of this package"):
        Deployment.open(old)
