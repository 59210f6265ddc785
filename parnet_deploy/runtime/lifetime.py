"""How what nobody closed ends: with the interpreter, in a forked child, or as garbage.

- **The interpreter ends.** It is closed first, which waits for calls in daemon threads, and for one
  that is being opened. An engine that came back into an interpreter that is gone would have its
  thread killed in the middle of foreign C++, and that aborts the process.
- **A forked child** has the memory and not the threads. Every call is refused there, and nothing
  is freed: to free an engine is to wait for its threads. The parent's is untouched.
- **Garbage** is collected anywhere, in the middle of a capture too, where no driver may be called.
  What needs the driver to be freed is put aside, and closed when the next one is opened.

A call pays nothing for this: a child sees the same flag as a caller of what is closed.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from queue import Empty, SimpleQueue
from typing import NoReturn
from weakref import WeakSet

from ..errors import BackendError


class Lifetime(ABC):
    """Open until ``close``; ``what`` is its name in messages.

    ``_closed`` is True as soon as calls are refused, ``_inherited`` in a forked child.
    """

    _closed = True
    _inherited = False

    def __init__(self, what: str) -> None:
        self._what = what
        self._closed = False
        _watch(self)

    @abstractmethod
    def close(self) -> None:
        """Wait for the work in flight, then free everything. Idempotent."""

    @property
    @abstractmethod
    def _needs_driver(self) -> bool:
        """Whether memory stays taken unless it is closed."""

    def _refusal(self) -> BackendError:
        """The error for a call that comes too late, or in the wrong process."""
        if self._inherited:
            return BackendError(
                f"{self._what}: it was opened in another process, from which this one was forked. "
                "Open it in this one with Runtime.open."
            )
        return refusal(f"{self._what}: it is closed. Open it again with Runtime.open.")

    def __reduce__(self) -> NoReturn:
        raise TypeError("runtime: it cannot be pickled or copied. Open it in the other process.")

    def __del__(self) -> None:
        if not self._closed and self._needs_driver:
            _put_aside.put(self)


def refusal(message: str) -> BackendError:
    """The error for a call on what is closed. Hold no slot and no lock of ours here."""
    stay_if_ending()
    return BackendError(message)


def stay_if_ending() -> None:
    """Never return in a daemon thread while the interpreter ends.

    It stays here until the process is gone, as it would in any other call, and prints no traceback.
    """
    if not threading.main_thread().is_alive():
        stay_if_daemon()


def stay_if_daemon() -> None:
    """The same, where it is known that the interpreter ends."""
    if threading.current_thread().daemon:
        threading.Event().wait()


@contextmanager
def opening() -> Iterator[None]:
    """Around all that loads engines: the interpreter does not end in the middle of it."""
    global _openings
    with _changed:
        late = _ended
        if not late:
            _openings += 1
    if late:
        stay_if_daemon()
    try:
        yield
    finally:
        if not late:
            with _changed:
                _openings -= 1
                _changed.notify_all()


_open: WeakSet[Lifetime] = WeakSet()
_openings = 0
_ended = False
_lock = threading.Lock()
_changed = threading.Condition(_lock)
_put_aside: SimpleQueue[Lifetime] = SimpleQueue()


def _watch(new: Lifetime) -> None:
    _close_garbage()
    with _lock:
        _open.add(new)


def _close_garbage() -> None:
    with suppress(Empty):
        while True:
            garbage = _put_aside.get_nowait()
            with suppress(BackendError):
                garbage.close()


def _close_all() -> None:
    global _ended
    with _changed:
        _ended = True
        _changed.wait_for(lambda: not _openings)
        left = tuple(_open)
    for one in left:
        with suppress(BackendError):
            one.close()
    _close_garbage()


def _disown_all() -> None:
    """In a forked child, by the thread that forked, which holds the lock."""
    global _put_aside, _openings
    for inherited in (_put_aside, *_open):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(inherited))  # never freed, not at exit either
    for one in tuple(_open):
        one._inherited = one._closed = True
    _open.clear()
    _openings = 0
    _put_aside = SimpleQueue()
    _lock.release()


atexit.register(_close_all)
os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_disown_all)
