"""Folders for work in progress: there while their process lives, gone after it."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from parnet_deploy.storage.scratch import scratch_folder

ROOT = Path(__file__).parents[2]
HOLDS = """
import sys
from pathlib import Path
from parnet_deploy.storage.scratch import scratch_folder
with scratch_folder("work-", Path(sys.argv[1])) as folder:
    (folder / "deep").mkdir()
    (folder / "deep" / "file").write_text("x")
    print(folder.name, flush=True)
    sys.stdin.read()
"""


def start(parent: Path) -> tuple[subprocess.Popen[str], str]:
    """Another process that holds a folder, and the folder's name."""
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", HOLDS, str(parent)]
    process = subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True)
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


def test_it_is_gone_after_the_block(tmp_path: Path) -> None:
    with scratch_folder("work-", tmp_path) as folder:
        assert folder.parent == tmp_path
        assert folder.stat().st_mode & 0o077 == 0, "what is built is nobody else's"
        (folder / "file").write_bytes(b"")
    assert list(tmp_path.iterdir()) == []


def test_it_is_gone_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), scratch_folder("work-", tmp_path):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_goes_with_the_next(tmp_path: Path) -> None:
    dead, left = start(tmp_path)
    with dead:
        dead.kill()
    living, held = start(tmp_path)
    with living:
        assert not (tmp_path / left).exists()
        with scratch_folder("work-", tmp_path):
            assert (tmp_path / held / "deep" / "file").exists(), "its process lives"
        assert living.communicate() == ("", None)
    assert list(tmp_path.iterdir()) == []


def test_only_what_is_ours_goes(tmp_path: Path) -> None:
    name = "work-" + "0" * 16
    elsewhere = tmp_path / "elsewhere"
    (tmp_path / "place").mkdir()
    elsewhere.mkdir()
    (elsewhere / "precious").write_bytes(b"")
    (tmp_path / "place" / name).symlink_to(elsewhere)
    for other in ("work-", "work-notes", "other-" + "0" * 16):
        (tmp_path / "place" / other).mkdir()
    (tmp_path / "place" / ("work-" + "1" * 16)).write_bytes(b"a file")
    before = sorted(path.name for path in (tmp_path / "place").iterdir())
    with scratch_folder("work-", tmp_path / "place"):
        pass
    assert sorted(path.name for path in (tmp_path / "place").iterdir()) == before
    assert (elsewhere / "precious").exists()


def test_many_at_once_do_not_take_each_other_s(tmp_path: Path) -> None:
    def work(number: int) -> None:
        with scratch_folder("work-", tmp_path) as folder:
            (folder / "file").write_text(str(number))
            assert (folder / "file").read_text() == str(number)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(200)))
    assert list(tmp_path.iterdir()) == []


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then nothing is swept, for nobody knows whose it is."""

    def none(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", none)
    with scratch_folder("work-", tmp_path) as first, scratch_folder("work-", tmp_path):
        assert first.exists()


def test_no_folder_can_be_made(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"), scratch_folder("work-", tmp_path / "gone"):
        pass
