"""Engines that were built before, by what they were built from; and TensorRT's timing caches.

    <root>/engines/<key>.plan   the engine
    <root>/engines/<key>.json   its record with the plan's sha256, sealed; written last
    <root>/timing/...           one timing cache for each version of TensorRT and model of GPU

The cache has no limit. It may be removed at any time, whole or in part: what is missing or damaged
is built again.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import BackendError, DeploymentError
from ...runtime.tensorrt.log import LOGGER
from ...storage.document import seal, unseal
from ...storage.files import fsync_path, hash_file
from ...storage.lock import POLL_S

CACHE_SCHEMA = 1


@dataclass(frozen=True, kw_only=True)
class CachedEngine:
    """A plan in the cache whose bytes are those that were stored, and its record."""

    plan: Path
    record: Mapping[str, Any]


class EngineCache:
    """A directory of engines, shared by processes. Made when something is stored."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @classmethod
    def default(cls) -> EngineCache:
        """The user's: ``PARNET_CACHE``, or ``parnet_deploy`` in the cache home of XDG."""
        own = os.environ.get("PARNET_CACHE")
        if own:
            return cls(Path(own))
        home = os.environ.get("XDG_CACHE_HOME")
        return cls((Path(home) if home else Path.home() / ".cache") / "parnet_deploy")

    def find(self, key: str, graph_sha256: str | None = None) -> CachedEngine | None:
        """The engine of this key; None if there is none, or it is damaged (which is logged).

        Args:
            key: From ``EngineKey``.
            graph_sha256: Of the graph, with which the record must agree; None: it is not known.
        """
        plan, about = self._files(key)
        try:
            found = unseal(about.read_bytes(), f"cache entry {key}", schema_version=CACHE_SCHEMA)
            record = found["record"]
            own = isinstance(record, Mapping)
            own = own and graph_sha256 in (None, record.get("graph_sha256"))
            if own and (found["plan_sha256"], found["plan_bytes"]) == hash_file(plan):
                return CachedEngine(plan=plan, record=record)
        except FileNotFoundError:
            return None
        except (OSError, KeyError, DeploymentError) as error:
            LOGGER.info(
                "engine cache, entry %s: built again, for it cannot be read: %s", key, error
            )
            return None
        LOGGER.info("engine cache, entry %s: built again, for its plan was changed", key)
        return None

    def store(self, key: str, plan: Path, record: Mapping[str, Any]) -> CachedEngine:
        """Keep a copy of a plan and its record. The caller holds the lock of the key.

        Raises:
            BackendError: The cache cannot be written.
        """
        target, about = self._files(key)
        digest, size = hash_file(plan)
        content = {
            "schema_version": CACHE_SCHEMA,
            "record": record,
            "plan_sha256": digest,
            "plan_bytes": size,
        }
        with self._errors():
            about.unlink(missing_ok=True)  # a record never stands beside another plan
            place_file(plan, target)
            write_file(about, seal(content))
        return CachedEngine(plan=target, record=record)

    @contextmanager
    def lock(self, key: str, on_wait: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Hold a key, so that two builds of one engine run once. Freed if the process dies.

        Args:
            key: Which engine.
            on_wait: Called once if another process or thread holds it.

        Raises:
            BackendError: The cache cannot be written.
        """
        from filelock import FileLock, Timeout

        path = self._files(key)[0].with_suffix(".lock")
        with self._errors():
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(str(path))
            try:
                lock.acquire(timeout=0)
            except Timeout:
                on_wait()
                lock.acquire(poll_interval=POLL_S)
        try:
            yield
        finally:
            lock.release()

    def timing_file(self, tensorrt: str, device: str) -> Path:
        """Where the timing cache of this version and model of GPU is kept."""
        name = re.sub(r"[^A-Za-z0-9.]+", "-", f"{tensorrt}-{device}")
        return self.root / "timing" / f"{name}.cache"

    def _files(self, key: str) -> tuple[Path, Path]:
        folder = self.root / "engines"
        return folder / f"{key}.plan", folder / f"{key}.json"

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            cure = f"Remove it ({self.root}) or" if full else "Make it writable, or"
            raise BackendError(
                f"engine cache {self.root}: got {error.strerror or error}, expected a directory "
                f"that can be written. {cure} set PARNET_CACHE to another one."
            ) from error


def place_file(source: Path, target: Path) -> None:
    """Copy a file so that ``target`` is there whole or not at all, and on disk.

    One process or thread at a time for one target, as for ``write_file``.
    """
    _replace(target, lambda path: shutil.copyfile(source, path))


def write_file(target: Path, data: bytes) -> None:
    """Write a file so that ``target`` is there whole or not at all, and on disk."""
    _replace(target, lambda path: path.write_bytes(data))


def _replace(target: Path, write: Callable[[Path], object]) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    path = target.with_name(f".{target.name}.part")  # one name: the next replaces what a kill left
    try:
        write(path)
        fsync_path(path)
        path.replace(target)
    except BaseException:
        with suppress(OSError):
            path.unlink(missing_ok=True)
        raise
    fsync_path(target.parent)
