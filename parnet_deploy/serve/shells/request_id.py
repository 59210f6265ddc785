"""Request ids: the client's own where it sends one that can be logged, else made here."""

from __future__ import annotations

import itertools
import os
import re

_USABLE = re.compile(r"[!-~]{1,128}")


class RequestIds:
    """Gives each request its id. Made ones are unique in this process and unlikely elsewhere."""

    def __init__(self) -> None:
        self._prefix = os.urandom(6).hex()
        self._count = itertools.count(1)

    def take(self, sent: str | bytes | None) -> str:
        """The id that the client sent, or a new one."""
        if sent:
            text = sent.decode("latin-1") if isinstance(sent, bytes) else sent
            if _USABLE.fullmatch(text):
                return text
        return f"{self._prefix}-{next(self._count):x}"
