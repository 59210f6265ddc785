"""The write-ahead journal: a commit happens whole or not at all, whenever the process dies.

Order of a commit: staged files are on disk (``fsync``); the journal is renamed into place, which is
the commit point; then files are removed and renamed into place, the manifest last; then the journal
goes. Whoever finds a journal repeats the rest of it, which gives the same result however far
it had come. Before the commit point the deployment is untouched, after it the new one is certain.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import stat
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from ..errors import DeploymentCorruptError, DeploymentError
from . import names
from .document import MAX_DOCUMENT_BYTES, seal, unseal
from .files import fsync_path
from .lock import WriterLock

SCHEMA_VERSION = 1
SETTLE_WAIT_S = 30.0


@dataclass(frozen=True, kw_only=True)
class Journal:
    """What a commit has still to do: remove these, then move those out of the staging directory.

    ``remove`` may hold the signature, which is not one of what the commit makes.
    A staged file has the same relative name as in the deployment; the manifest is staged too and
    not named in ``place``.
    """

    staging: str
    remove: tuple[str, ...]
    place: tuple[str, ...]


def new_staging(root: Path) -> Path:
    """Make an empty staging directory inside the deployment, on the same file system."""
    staging = root / f"{names.STAGING_PREFIX}{secrets.token_hex(8)}"
    staging.mkdir()
    return staging


def discard_staging(root: Path) -> None:
    """Throw away all staging directories. Only under the lock and without a journal."""
    for path in root.glob(f"{names.STAGING_PREFIX}*"):
        if names.is_staging(path.name) and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)


def publish(root: Path, journal: Journal) -> None:
    """Commit. Only under the lock; all staged files are on disk already.

    Raises:
        DeploymentError: Something foreign stands where a file must go. Nothing changed.
        OSError: Nothing changed if there is no journal in the directory now; if there is one, the
            commit is certain, and ``settle`` completes it.
    """
    _check_inside(root, journal)
    _check_room(root, journal)
    draft = root / journal.staging / names.JOURNAL
    draft.write_bytes(seal({"schema_version": SCHEMA_VERSION, **asdict(journal)}))
    fsync_path(draft)
    for folder in _folders(root / journal.staging, (*journal.place, names.MANIFEST)):
        fsync_path(folder)
    fsync_path(root)
    os.replace(draft, root / names.JOURNAL)  # the commit point
    fsync_path(root)
    _complete(root, journal)


def settle(root: Path, wait_s: float = SETTLE_WAIT_S) -> None:
    """Return when no commit is under way: wait for a live one, complete that of a dead writer.

    Raises:
        DeploymentError: A live one did not end in ``wait_s``, or completing failed.
        DeploymentCorruptError: The journal is not one that this package wrote.
    """
    deadline = time.monotonic() + wait_s
    path = root / names.JOURNAL
    while os.path.lexists(path):
        lock = WriterLock(root)
        try:
            if lock.acquire(wait_s=0.2):
                recover(root)
                return
        except OSError as error:
            raise DeploymentError(
                f"deployment {root}: cannot complete an interrupted commit: got {error}, expected "
                "a writable directory. Nothing is lost; make it writable and open it again."
            ) from error
        finally:
            lock.release()
        if time.monotonic() > deadline:
            raise DeploymentError(
                f"deployment {root}: got a commit by {lock.holder()} that does not end, expected "
                f"it to take less than {wait_s:g} s. Wait for that process, or end it."
            )


def recover(root: Path) -> None:
    """Roll an interrupted commit forward, if there is one. Only under the lock."""
    path = root / names.JOURNAL
    if not os.path.lexists(path):
        return
    journal = _read(root, path)
    _complete(root, journal)


def _read(root: Path, path: Path) -> Journal:
    where = f"journal {path}"
    about = path.lstat()
    if not stat.S_ISREG(about.st_mode) or about.st_size > MAX_DOCUMENT_BYTES:
        raise DeploymentCorruptError(f"{where}: this is not a journal of this package. Remove it.")
    data = unseal(path.read_bytes(), where, schema_version=SCHEMA_VERSION)
    found = {key: data.get(key) for key in ("staging", "remove", "place")}
    lists = [found["remove"], found["place"]]
    flat = [item for items in lists if isinstance(items, list) for item in items]
    valid = (
        all(isinstance(items, list) for items in lists)
        and isinstance(found["staging"], str)
        and names.is_staging(found["staging"])
        and all(isinstance(item, str) for item in flat)
        and not any(names.artifact_problem(item) for item in flat if item != names.SIGNATURE)
        and names.SIGNATURE not in (found["place"] or ())
    )
    if not valid:
        raise DeploymentCorruptError(f"{where}: this is not a journal of this package. Remove it.")
    return Journal(
        staging=str(found["staging"]), remove=tuple(lists[0] or ()), place=tuple(lists[1] or ())
    )


def _complete(root: Path, journal: Journal) -> None:
    """Everything after the commit point. Repeating it, from wherever it stopped, changes nothing.

    Raises:
        DeploymentCorruptError: A file is neither staged nor in place, or would land outside.
    """
    _check_inside(root, journal)
    staging = root / journal.staging
    for name in journal.remove:
        _remove(root / name)
    _prune(root, journal.remove)
    for name in journal.place:
        _place(root, staging, name)
    for folder in _folders(root, (*journal.place, *journal.remove)):
        if folder.exists():
            fsync_path(folder)
    _place(root, staging, names.MANIFEST)
    fsync_path(root)
    os.unlink(root / names.JOURNAL)
    with suppress(OSError):  # all is done; a journal that a power cut brings back does no harm
        fsync_path(root)
    shutil.rmtree(staging, ignore_errors=True)


def _check_inside(root: Path, journal: Journal) -> None:
    """Never write or remove through a symbolic link that leads out of the deployment."""
    for name in (journal.staging + "/.", *journal.remove, *journal.place):
        if not names.is_inside(root, str(Path(name).parent)):
            raise DeploymentCorruptError(
                f"deployment {root}: got {name} in a directory that leads outside, expected it "
                "inside. Replace the symbolic link by the directory it points to."
            )


def _check_room(root: Path, journal: Journal) -> None:
    """Refuse before the commit point what would stop the commit after it."""
    going = {root / name for name in journal.remove}
    going |= {folder for path in going for folder in path.parents}
    for name in journal.place:
        target = root / name
        above = [root / folder for folder in Path(name).parents[:-1]]
        blocked = [path for path in above if path.exists() and not path.is_dir()]
        if target.is_dir() and not target.is_symlink():
            blocked += [path for path in (*target.rglob("*"),) if path not in going]
            blocked += [] if target in going else [target]
        foreign = [path for path in blocked if path not in going]
        if foreign:
            raise DeploymentError(
                f"deployment {root}: got {foreign[0]} where {name} must go, expected nothing "
                "foreign there. Move it away and run the command again. Nothing was changed."
            )


def _remove(path: Path) -> None:
    """Unlink, unless an earlier attempt did and a new file or directory has taken the place."""
    if path.is_symlink() or not path.is_dir():
        with suppress(FileNotFoundError, NotADirectoryError):
            path.unlink()


def _place(root: Path, staging: Path, name: str) -> None:
    source, target = staging / name, root / name
    if source.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(source, target)
    elif not target.exists():
        raise DeploymentCorruptError(
            f"deployment {root}: got neither {name} nor its staged copy, expected one of them (the "
            "directory was copied in part). Remove it and run: parnet-deploy fuse model.pt."
        )


def _prune(root: Path, removed: Iterable[str]) -> None:
    """Remove directories that are empty now."""
    for name in removed:
        for folder in Path(name).parents[:-1]:
            try:
                (root / folder).rmdir()
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.ENOENT, errno.ENOTDIR):
                    raise


def _folders(base: Path, files: Iterable[str]) -> list[Path]:
    """The directories that hold these files, and those above up to ``base``; deepest first."""
    found = {base / folder for name in files for folder in Path(name).parents}
    return sorted(found, key=lambda path: len(path.parts), reverse=True)
