"""One request on its way through the scheduler, and the batches that share an engine run."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..clock import Timer

Images = NDArray[np.float32]  # (N, C, H, W)
Logits = NDArray[np.float32]  # (N, K)
Size = tuple[int, int]
"""(height, width); only images of one size share a batch."""


class Ticket:
    """A request's place. ``level``: 1 runs first. Times are the clock's.

    ``images`` are the caller's until the answer is there. Everything that changes is changed under
    the scheduler's lock, but for ``answer`` and ``timer``, which belong to the event loop.
    """

    __slots__ = (
        "answer",
        "answered",
        "count",
        "deadline_s",
        "images",
        "level",
        "queued_s",
        "size",
        "timer",
    )

    def __init__(self, images: Images, *, level: int, deadline_s: float, queued_s: float) -> None:
        self.images = images
        self.count: int = images.shape[0]
        self.size: Size = images.shape[2:]
        self.level, self.deadline_s, self.queued_s = level, deadline_s, queued_s
        self.answered = False  # by a refusal, or nobody wants it any more
        self.answer: asyncio.Future[Answer] | None = None
        self.timer: Timer | None = None


class Batch:
    """Tickets of one image size that run together. ``expected_s``: when it should be done."""

    __slots__ = ("count", "expected_s", "size", "tickets")

    def __init__(self, tickets: tuple[Ticket, ...], expected_s: float) -> None:
        self.tickets = tickets
        self.count = sum(ticket.count for ticket in tickets)
        self.size = tickets[0].size
        self.expected_s = expected_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Logits (N, K) of one request. ``batch``: images that shared its engine run."""

    logits: Logits
    queue_s: float
    infer_s: float
    batch: int


Outcome = list[Any]
"""For each ticket of a batch its logits, or the exception that stands for them."""
