"""Libraries whose threads a fork leaves behind: refuse what would wait for them for ever."""

from __future__ import annotations

import os

from ..errors import BackendError


class ForkGuard:
    """Remembers whether a process was forked from one that had used a library.

    There the library believes in threads that were not copied. With one thread it asks none.
    """

    def __init__(self, library: str) -> None:
        self._library = library
        self._used = self._left_behind = False
        os.register_at_fork(after_in_child=self._note)

    def use(self, threads: int) -> None:
        """Say that engines with so many threads will run here.

        Raises:
            BackendError: The threads that they would wait for are in another process.
        """
        if self._left_behind and threads > 1:
            raise BackendError(
                f"{self._library}: this process was forked from one that had used it, whose "
                f"threads did not come along: got {threads} threads, expected 1. Open with "
                "threads=1, or start the process with spawn."
            )
        self._used = True

    def _note(self) -> None:
        self._left_behind = self._left_behind or self._used
