"""One writer per deployment: a file lock that says who holds it."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path

from . import names
from .files import open_plain

POLL_S = 0.02
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NONBLOCK | os.O_CLOEXEC  # no wait at a pipe


class WriterLock:
    """Exclusive among processes and threads; freed by the kernel when its holder dies.

    Not reentrant: a second one for the same directory waits, in the same thread too.

    Owns: the lock file inside the deployment, which stays there empty (removing it would let two
    waiting writers lock two different files of the same name).
    """

    def __init__(self, root: Path) -> None:
        from filelock import FileLock  # here, for reading a deployment does not need it

        self._root = root
        self._lock = FileLock(str(root / names.LOCK))

    def acquire(self, wait_s: float) -> bool:
        """Take the lock; False if somebody else still holds it after ``wait_s``.

        Raises:
            OSError: The lock file cannot be made or locked there.
        """
        from filelock import Timeout

        try:
            self._lock.acquire(timeout=wait_s, poll_interval=POLL_S)
        except Timeout:
            return False
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        text = f"process {os.getpid()} on {socket.gethostname()} since {now}"
        with suppress(OSError):  # only for the message that another writer shows
            handle = os.open(self._root / names.LOCK_HOLDER, _WRITE, 0o644)
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
        return True

    def release(self) -> None:
        """Free the lock; does nothing if it is not held."""
        if self._lock.is_locked:
            with suppress(OSError):
                (self._root / names.LOCK_HOLDER).unlink(missing_ok=True)
            self._lock.release()

    def holder(self) -> str:
        """Who holds the lock, in words."""
        try:
            with open_plain(self._root / names.LOCK_HOLDER) as file:
                text = file.read(200).decode("utf-8", "replace")
        except OSError:
            text = ""
        return text if text.isprintable() and text else "another process"
