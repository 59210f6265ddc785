"""Answers several requests with as few calls of the runtime as their shapes allow."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

Images = NDArray[np.float32]
Logits = NDArray[np.float32]
Answer = Logits | Exception
Call = Callable[[Images], Logits]


def answer_all(call: Call, requests: Sequence[Images | Exception], max_batch: int) -> list[Answer]:
    """Logits or the error of each request, in their order.

    Requests of one image size are run together, up to ``max_batch`` images a call. A call that
    fails is repeated one request at a time, so that a bad request harms no other.

    Args:
        call: The runtime.
        requests: Images of each, (n, C, H, W); an error in place of images stays.
        max_batch: Images a call.
    """
    answers: list[Answer | None] = [x if isinstance(x, Exception) else None for x in requests]
    for group in _groups(requests, max_batch):
        for index, answer in zip(group, _together(call, [requests[i] for i in group]), strict=True):
            answers[index] = answer
    return [answer for answer in answers if answer is not None]


def _groups(requests: Sequence[Images | Exception], max_batch: int) -> Iterator[list[int]]:
    """Indices of requests that may run in one call."""
    by_shape: dict[tuple[object, ...], list[int]] = {}
    for index, images in enumerate(requests):
        if not isinstance(images, Exception):
            by_shape.setdefault((images.dtype, images.shape[1:]), []).append(index)
    for indices in by_shape.values():
        group: list[int] = []
        count = 0
        for index in indices:
            n = len(requests[index])  # type: ignore[arg-type]
            if group and count + n > max_batch:
                yield group
                group, count = [], 0
            group.append(index)
            count += n
        yield group


def _together(call: Call, group: Sequence[Images | Exception]) -> list[Answer]:
    batches = [images for images in group if not isinstance(images, Exception)]
    if len(batches) == 1:
        return [_one(call, batches[0])]
    try:
        logits = call(np.concatenate(batches))
    except Exception:  # whose fault it was, each finds out alone
        return [_one(call, images) for images in batches]
    ends = np.cumsum([len(images) for images in batches])[:-1]
    return list(np.split(logits, ends))


def _one(call: Call, images: Images) -> Answer:
    try:
        return call(images)
    except Exception as error:
        return error
