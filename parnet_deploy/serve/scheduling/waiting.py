"""The requests that wait, in the order in which they run."""

from __future__ import annotations

import bisect
from collections import Counter, OrderedDict
from collections.abc import Iterator

from .ticket import Size, Ticket


class WaitingQueue:
    """By level, then by arrival; leaving from anywhere costs the same. Not thread-safe.

    ``images`` is how many images wait.
    """

    def __init__(self) -> None:
        self.images = 0
        self._order: list[int] = []  # levels with tickets, ascending
        self._levels: dict[int, OrderedDict[Ticket, None]] = {}
        self._sizes: dict[int, Counter[Size]] = {}  # images of each size in a level

    def __len__(self) -> int:
        return sum(map(len, self._levels.values()))

    def __bool__(self) -> bool:
        return bool(self._order)

    def __contains__(self, ticket: Ticket) -> bool:
        return ticket in self._levels.get(ticket.level, ())

    def __iter__(self) -> Iterator[Ticket]:
        for level in self._order:
            yield from self._levels[level]

    def put(self, ticket: Ticket) -> None:
        """Last of its level."""
        level = ticket.level
        if level not in self._levels:
            bisect.insort(self._order, level)
            self._levels[level], self._sizes[level] = OrderedDict(), Counter()
        self._levels[level][ticket] = None
        self._sizes[level][ticket.size] += ticket.count
        self.images += ticket.count

    def remove(self, ticket: Ticket) -> bool:
        """Take a ticket out; false if it is not there (any more)."""
        if ticket not in self:
            return False
        level = ticket.level
        del self._levels[level][ticket]
        sizes = self._sizes[level]
        sizes[ticket.size] -= ticket.count
        if not sizes[ticket.size]:
            del sizes[ticket.size]
        self.images -= ticket.count
        if not self._levels[level]:
            del self._levels[level], self._sizes[level]
            self._order.remove(level)
        return True

    def first(self) -> Ticket:
        """Whose turn it is. There must be one."""
        return next(iter(self._levels[self._order[0]]))

    def images_ahead(self, level: int) -> Counter[Size]:
        """Images by size that run before a new ticket of this level."""
        ahead: Counter[Size] = Counter()
        for other in self._order:
            if other > level:
                break
            ahead.update(self._sizes[other])
        return ahead

    def images_of(self, size: Size) -> int:
        """Images of this size."""
        return sum(sizes[size] for sizes in self._sizes.values())
