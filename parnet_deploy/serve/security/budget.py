"""Bytes that all clients together may have on the server at one time."""

from __future__ import annotations

from ..protocol.refusal import RefusedError


class Budget:
    """Counts the bytes of bodies that are being received or answered. For one event loop.

    Args:
        limit: How many there may be.
    """

    def __init__(self, limit: int) -> None:
        self._limit, self.taken = limit, 0

    def take(self, count: int) -> None:
        """Count some more; to be given back.

        Raises:
            RefusedError: There is no room. Nothing was counted.
        """
        if self.taken + count > self._limit:
            raise RefusedError(
                "busy",
                f"bodies: got {self.taken + count} bytes of all clients together, expected at most "
                f"{self._limit}. Try again later.",
            )
        self.taken += count

    def give_back(self, count: int) -> None:
        """Count some less."""
        self.taken -= count
