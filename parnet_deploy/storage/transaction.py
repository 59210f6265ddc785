"""Writing a deployment: stage files, finish steps, commit everything at once."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from ..errors import DeploymentCorruptError, DeploymentError, DeploymentNotFoundError
from . import names
from .draft import Draft
from .files import disk_error, fsync_path, hash_file, storage_error
from .journal import Journal, discard_staging, new_staging, publish, recover
from .lock import WriterLock
from .manifest import Manifest, load_manifest
from .signature import Signature, place_signature
from .statement import statement

Notify = Callable[[str], None]

_OWN = (names.LOCK, names.LOCK_HOLDER)
_LOG = logging.getLogger(__name__)


class Transaction(Draft):
    """One change of a deployment; made by ``Deployment.edit``, used in a ``with`` block.

    Leaving the block publishes everything that was staged, at once. Leaving it by an exception
    publishes nothing. What then answers otherwise is not signed any more: its signature goes.
    Not thread-safe: one thread writes.

    Owns: the lock and a staging directory, from entering the block to leaving it.
    """

    def __init__(
        self, root: Path, *, create: bool = False, wait_s: float, on_wait: Notify | None = None
    ) -> None:
        super().__init__()
        self.path = root
        self._create = create
        self._wait_s = wait_s
        self._on_wait = on_wait or _LOG.warning
        self._lock: WriterLock | None = None
        self._staging: Path | None = None

    def stage(self, name: str) -> Path:
        """Path to write the artifact ``name`` to; its directory exists.

        Owns: the file belongs to the transaction; do not keep it open after the block.

        Raises:
            DeploymentError: The name is no plain relative path.
        """
        problem = names.artifact_problem(name)
        if problem:
            raise DeploymentError(f"artifact {name!r} in {self.path}: {problem}. Rename it.")
        path = self._staging_dir() / name
        path.parent.mkdir(parents=True, exist_ok=True)
        self._staged.setdefault(name, None)
        self._changed = True
        return path

    def remove(self, name: str) -> None:
        """Drop one artifact. The step that made it is not current any more."""
        if name in self._staged:
            del self._staged[name]
            (self._staging_dir() / name).unlink(missing_ok=True)
        elif name not in self._artifacts:
            raise ValueError(f"artifact {name}: the deployment has none of this name")
        self._artifacts.pop(name, None)
        self._changed = True

    def attach(self, signature: Signature) -> None:
        """Put a signature beside the manifest: at once, for it is of what is there already."""
        if self._changed:
            raise ValueError("staged and signed in one block: publish first, then sign")
        place_signature(self._staging_dir() / names.SIGNATURE, self.path, signature)

    def __enter__(self) -> Transaction:
        try:
            self._open()
        except OSError as error:
            self._close()
            raise storage_error(error, self.path) from error
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                self._commit()
            elif ours := disk_error(error, self.path):
                raise ours from error
        except OSError as failure:
            raise storage_error(failure, self.path) from failure
        finally:
            self._close()

    def _open(self) -> None:
        root = self.path
        if self._create:
            root.mkdir(parents=True, exist_ok=True)
        elif not root.is_dir():
            load_manifest(root)  # raises: there is none
        self._refuse_foreign()
        self._lock = self._acquire()
        recover(root)
        discard_staging(root)
        try:
            self._load(load_manifest(root))
        except DeploymentNotFoundError:
            if not self._create:
                raise
        self._staging = new_staging(root)

    def _acquire(self) -> WriterLock:
        lock = WriterLock(self.path)
        if lock.acquire(wait_s=0):
            return lock
        self._on_wait(
            f"deployment {self.path}: {lock.holder()} is writing it; "
            f"waiting up to {self._wait_s:g} s."
        )
        if lock.acquire(wait_s=self._wait_s):
            return lock
        raise DeploymentError(
            f"deployment {self.path}: got the lock of {lock.holder()}, expected no other writer "
            f"after {self._wait_s:g} s. Wait until it has ended, or end it, and run the command "
            "again."
        )

    def _refuse_foreign(self) -> None:
        """Never write into a directory that is something else."""
        found = {path.name for path in self.path.iterdir()}
        foreign = sorted(n for n in found if n not in _OWN and not names.is_staging(n))
        if foreign and not found & {names.MANIFEST, names.JOURNAL}:
            raise DeploymentError(
                f"deployment {self.path}: got a directory with {foreign[0]} and no "
                f"{names.MANIFEST}, expected a deployment or an empty directory. "
                "Choose another name."
            )

    def _commit(self) -> None:
        if not self._changed:
            return
        staging = self._staging_dir()
        self._check_staged(staging)
        for name, step in self._staged.items():
            self._artifacts[name] = _seal_file(staging / name, name, step)
        manifest = self._manifest()
        (staging / names.MANIFEST).write_bytes(_checked(manifest, self.path))
        fsync_path(staging / names.MANIFEST)
        before = {} if self._base is None else self._base.artifacts
        going = set(before) - set(self._artifacts)
        if self._outdates_signature(manifest):
            going.add(names.SIGNATURE)
        publish(
            self.path,
            Journal(
                staging=staging.name,
                remove=tuple(sorted(going)),
                place=tuple(sorted(self._staged)),
            ),
        )

    def _outdates_signature(self, manifest: Manifest) -> bool:
        """Whether there is a signature, of something else than this will be."""
        if not os.path.lexists(self.path / names.SIGNATURE):
            return False
        return self._base is None or statement(self._base) != statement(manifest)

    def _check_staged(self, staging: Path) -> None:
        loose = sorted(name for name, step in self._staged.items() if step is None)
        if loose:
            raise ValueError(f"staged, but no step was finished for them: {loose}")
        files = {p.relative_to(staging).as_posix() for p in staging.rglob("*") if not p.is_dir()}
        if files - set(self._staged):
            raise ValueError(f"written, but not staged: {sorted(files - set(self._staged))}")

    def _staging_dir(self) -> Path:
        if self._staging is None:
            raise ValueError("the transaction is not open: use it in a with block")
        return self._staging

    def _close(self) -> None:
        """Free what is held. Staging stays if a journal needs it."""
        if self._lock is None:
            return
        if not os.path.lexists(self.path / names.JOURNAL):
            discard_staging(self.path)
        self._staging = None
        self._lock.release()
        self._lock = None


def _seal_file(path: Path, name: str, step: str | None) -> dict[str, Any]:
    """Bring a staged file to disk and describe it."""
    try:
        regular = stat.S_ISREG(path.lstat().st_mode)
    except FileNotFoundError:
        regular = False
    if not regular:
        raise ValueError(f"staged, but not written as a plain file: {name}")
    fsync_path(path)
    sha256, size = hash_file(path)
    return {"sha256": sha256, "bytes": size, "step": step}


def _checked(manifest: Manifest, root: Path) -> bytes:
    """Never write a manifest that could not be opened again."""
    raw = manifest.render()
    try:
        Manifest.parse(raw, "manifest")
    except DeploymentCorruptError as error:
        raise DeploymentError(
            f"deployment {root}: {error.__cause__} Nothing was changed."
        ) from error
    return raw
