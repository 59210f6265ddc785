"""The threads in which ``Runtime.submit`` computes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from ..errors import BackendError
from .lifetime import refusal, stay_if_daemon

Answer = TypeVar("Answer")


class CallPool:
    """As many threads as calls run at once, started by the first call. Thread-safe.

    ``what`` is the name of its owner, for messages.

    Owns: the threads, until ``close``.
    """

    def __init__(self, what: str, threads: int) -> None:
        self._what, self._threads = what, threads
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None
        self._closed = False
        self._here = threading.local()  # ``ours`` is set in the threads of the pool

    def submit(self, call: Callable[..., Answer], *arguments: Any) -> Future[Answer]:
        """Make a call in one of the threads.

        Raises:
            BackendError: The pool is closed, or the system has no thread left.
        """
        try:
            with self._lock:
                if not self._closed:
                    return self._started().submit(call, *arguments)
        except RuntimeError as error:  # no thread can be started
            if "shutdown" in str(error):  # the interpreter's, for the pool is not closed
                stay_if_daemon()
            raise BackendError(f"{self._what}: no thread to compute in: {error}.") from error
        raise refusal(f"{self._what}: it is closed. Open it again with Runtime.open.")

    def check_thread(self) -> None:
        """Refuse to be closed by one of the threads, in a callback of a future.

        Raises:
            BackendError: ``close`` would wait for the thread that it is called in.
        """
        if getattr(self._here, "ours", False):
            raise BackendError(
                f"{self._what}: close was called in a callback of a future of its own, for which "
                "it would wait. Call it in another thread."
            )

    def close(self) -> None:
        """Make the calls that were accepted, then end the threads. Idempotent."""
        with self._lock:
            self._closed = True
        if self._pool is not None:
            self._pool.shutdown(wait=True)

    def _started(self) -> ThreadPoolExecutor:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(
                self._threads,
                thread_name_prefix="parnet-submit",
                initializer=partial(setattr, self._here, "ours", True),
            )
        return self._pool
