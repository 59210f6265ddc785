"""The slots that nobody uses: the one given back last is handed out first.

Its buffers are still in the caches of the processor, where another's would have to be fetched.
"""

from __future__ import annotations

from collections.abc import Iterator
from queue import SimpleQueue

from .slot import Slot

_ONCE = (True,)  # one blocking SimpleQueue.get
_FIRST = (0,)
_LAST: dict[None, int] = {None: -1}


class FreeSlots:
    """A stack that can be waited for. None in it means that no slot will ever be free again.

    A signal handler may raise between any two bytecodes. So ``take`` and ``give`` do nothing by
    themselves: they return iterators made of C functions alone, and whoever uses one up in a single
    C call (``list.extend``, ``any``) moves a slot wholly or not at all.
    """

    def __init__(self) -> None:
        self._stack: list[Slot | None] = []
        self._tokens: SimpleQueue[None] = SimpleQueue()  # one for each in the stack, put after it

    def take(self) -> Iterator[Slot | None]:
        """Wait for a slot and yield it."""
        return map(self._stack.pop, map(_LAST.__getitem__, map(self._tokens.get, _ONCE)))

    def give(self, mine: list[Slot | None]) -> Iterator[None]:
        """Move the first of ``mine`` here."""
        return map(self._tokens.put, map(self._stack.append, map(mine.pop, _FIRST)))

    def qsize(self) -> int:
        """How many can be taken without waiting."""
        return self._tokens.qsize()
