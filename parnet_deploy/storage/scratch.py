"""Folders for work in progress. What a killed process left in one, the next process throws away.

A folder is locked while its process lives; the kernel frees the lock when it dies, however it dies.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@contextmanager
def scratch_folder(prefix: str, parent: Path | None = None) -> Iterator[Path]:
    """An empty folder that is gone after the block.

    Args:
        prefix: Of its name, for one purpose; those of this name whose process is dead go.
        parent: Where; None is the place for temporary files (``TMPDIR``).

    Raises:
        OSError: It cannot be made there.
    """
    parent = parent or Path(tempfile.gettempdir())
    _sweep(parent, prefix)
    path, handle = _make(parent, prefix)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(handle)


def _make(parent: Path, prefix: str) -> tuple[Path, int]:
    """A new folder and the open handle that holds its lock."""
    while True:
        path = parent / f"{prefix}{secrets.token_hex(8)}"
        path.mkdir(mode=0o700)
        try:
            handle = os.open(path, _DIRECTORY)
        except FileNotFoundError:  # swept before it was locked
            continue
        if _lock(handle) is not False and path.exists():
            return path, handle
        os.close(handle)


def _sweep(parent: Path, prefix: str) -> None:
    """Remove the folders of this user and purpose that nobody holds."""
    name = re.compile(re.escape(prefix) + r"[0-9a-f]{16}\Z")
    for path in parent.glob(f"{prefix}*"):
        if not name.match(path.name):
            continue
        try:
            handle = os.open(path, _DIRECTORY)
        except OSError:  # gone, or somebody else's
            continue
        if os.fstat(handle).st_uid == os.geteuid() and _lock(handle):
            shutil.rmtree(path, ignore_errors=True)
        os.close(handle)


def _lock(handle: int) -> bool | None:
    """Take the lock; False if another has it, None where the file system has no locks."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True
