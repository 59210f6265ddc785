"""The engine cache: what was stored or nothing, however it is damaged; one holder of a key."""

from __future__ import annotations

import errno
import logging
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parnet_deploy.builder.tensorrt import engine_cache
from parnet_deploy.builder.tensorrt.engine_cache import EngineCache, place_file, write_file
from parnet_deploy.errors import BackendError

ROOT = Path(__file__).parents[2]
KEY = "ab" * 32
RECORD = {"layers": {"float32": 3}, "seconds": 1.5}
LIMIT_S = 60.0  # only so that a broken test ends; nothing waits this long


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    path = tmp_path / "new.plan"
    path.write_bytes(bytes(range(256)))
    return path


@pytest.fixture
def cache(tmp_path: Path) -> EngineCache:
    return EngineCache(tmp_path / "cache")


def test_store_and_find(cache: EngineCache, plan: Path) -> None:
    assert cache.find(KEY) is None
    cache.store(KEY, plan, RECORD)
    plan.unlink()
    found = cache.find(KEY)
    assert found is not None
    assert found.plan.read_bytes() == bytes(range(256))
    assert found.record == RECORD
    assert cache.find("cd" * 32) is None
    assert sorted(path.name for path in cache.root.rglob("*") if path.is_file()) == [
        f"{KEY}.json",
        f"{KEY}.plan",
    ], "no temporary file stays"


def test_storing_again_replaces(cache: EngineCache, plan: Path) -> None:
    cache.store(KEY, plan, RECORD)
    plan.write_bytes(b"other")
    cache.store(KEY, plan, {"n": 2})
    found = cache.find(KEY)
    assert found is not None
    assert (found.plan.read_bytes(), found.record) == (b"other", {"n": 2})


@given(data=st.data())
def test_a_flipped_byte_is_found(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("flip")
    plan = folder / "plan"
    plan.write_bytes(bytes(range(64)))
    cache = EngineCache(folder)
    cache.store(KEY, plan, RECORD)
    path = folder / "engines" / f"{KEY}{data.draw(st.sampled_from(['.plan', '.json']))}"
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)
    assert cache.find(KEY) is None


@pytest.mark.parametrize("suffix", [".plan", ".json"])
@pytest.mark.parametrize("change", ["cut", "empty", "gone", "folder"])
def test_damage_is_a_miss(
    suffix: str, change: str, cache: EngineCache, plan: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "parnet_deploy.tensorrt")
    cache.store(KEY, plan, RECORD)
    path = cache.root / "engines" / f"{KEY}{suffix}"
    data = path.read_bytes()
    path.unlink()
    if change == "folder":
        path.mkdir()
    elif change != "gone":
        path.write_bytes(data[:10] if change == "cut" else b"")
    assert cache.find(KEY) is None
    assert ("built again" in caplog.text) is (change != "gone")


def test_plan_and_record_of_two_stores_never_mix(
    cache: EngineCache, plan: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process dies between the two files."""
    cache.store(KEY, plan, RECORD)
    plan.write_bytes(b"other")

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(engine_cache, "write_file", die)
    with pytest.raises(KeyboardInterrupt):
        cache.store(KEY, plan, {"n": 2})
    assert cache.find(KEY) is None


def test_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "file"
    write_file(target, b"old")

    def full(path: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(engine_cache, "fsync_path", full)
    with pytest.raises(OSError, match="No space"):
        write_file(target, b"new")
    with pytest.raises(OSError, match="No space"):
        place_file(target, tmp_path / "other")
    assert target.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_what_a_kill_left_of_a_write_goes_with_the_next(cache: EngineCache, plan: Path) -> None:
    """However often a process is killed, one part of each file stays at most."""
    cache.store(KEY, plan, RECORD)
    script = (
        "import os, signal, sys; from pathlib import Path\n"
        "from parnet_deploy.builder.tensorrt import engine_cache as module\n"
        "module.fsync_path = lambda _: os.kill(os.getpid(), signal.SIGKILL)\n"
        "module.EngineCache(Path(sys.argv[1])).store(sys.argv[2], Path(sys.argv[3]), {})\n"
    )
    for _ in range(2):
        command = [sys.executable, "-c", script, str(cache.root), KEY, str(plan)]
        assert subprocess.run(command, cwd=ROOT, check=False).returncode == -9
        assert cache.find(KEY) is None
    assert len(list((cache.root / "engines").glob(".*"))) == 1
    cache.store(KEY, plan, RECORD)
    assert cache.find(KEY) is not None
    assert list((cache.root / "engines").glob(".*")) == []


def test_full_disk_is_an_error_with_the_way_out(
    cache: EngineCache, plan: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(engine_cache, "fsync_path", full)
    with pytest.raises(BackendError, match=r"No space left.*Remove it .*set PARNET_CACHE"):
        cache.store(KEY, plan, RECORD)


def test_cache_where_nothing_can_be_made(plan: Path) -> None:
    cache = EngineCache(plan / "inside-a-file")
    assert cache.find(KEY) is None
    with (
        pytest.raises(BackendError, match="expected a directory that can be written"),
        cache.lock(KEY),
    ):
        pass


def test_home_of_the_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PARNET_CACHE", str(tmp_path))
    assert EngineCache.default().root == tmp_path
    monkeypatch.delenv("PARNET_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert EngineCache.default().root == tmp_path / "xdg" / "parnet_deploy"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert EngineCache.default().root == tmp_path / "home" / ".cache" / "parnet_deploy"


def test_one_timing_cache_for_a_version_and_gpu(cache: EngineCache) -> None:
    names = {
        cache.timing_file("10.16.1.11", "NVIDIA H200").name,
        cache.timing_file("10.16.1.11", "NVIDIA H100 80GB HBM3").name,
        cache.timing_file("11.4.0.106", "NVIDIA H200").name,
    }
    assert len(names) == 3
    assert "10.16.1.11-NVIDIA-H200.cache" in names


def test_second_holder_of_a_key_waits(cache: EngineCache) -> None:
    waiting = Event()

    def second() -> None:
        with cache.lock(KEY, waiting.set):
            pass

    with ThreadPoolExecutor() as pool:
        with cache.lock(KEY, lambda: pytest.fail("the first does not wait")):
            with cache.lock("cd" * 32):
                pass  # another key is free
            done = pool.submit(second)
            assert waiting.wait(LIMIT_S)
            assert not done.done()
        done.result(LIMIT_S)


def test_an_entry_of_another_graph_is_not_taken(cache: EngineCache, plan: Path) -> None:
    cache.store(KEY, plan, {**RECORD, "graph_sha256": "aa"})
    assert cache.find(KEY, "aa") is not None
    assert cache.find(KEY, "bb") is None
    cache.store(KEY, plan, ["no record"])
    assert cache.find(KEY) is None
