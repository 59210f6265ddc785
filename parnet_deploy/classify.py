"""Classify image files with any network: probabilities, accuracy, and which files were bad."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .errors import InputError
from .preprocess import Preprocessing, load_image

Images = NDArray[np.float32]  # (N, C, H, W)
Logits = NDArray[np.float32]  # (N, K)
Network = Callable[[Images], Logits]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What the network says about one image: all K probabilities."""

    path: Path
    probabilities: NDArray[np.float64]

    def top(self, count: int) -> tuple[tuple[int, float], ...]:
        """The likeliest classes with their probabilities, the best first."""
        order = np.argsort(-self.probabilities, kind="stable")[:count]
        return tuple((int(k), float(self.probabilities[k])) for k in order)


@dataclass(frozen=True, kw_only=True)
class Unreadable:
    """An image that could not be read, and why."""

    path: Path
    reason: str


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """How many top-1 answers were right."""

    right: int
    total: int

    @property
    def share(self) -> float:
        """Right answers of all, 0 to 1."""
        return self.right / self.total


def classify(
    network: Network,
    paths: Sequence[Path],
    preprocessing: Preprocessing,
    *,
    batch: int = 1,
    on_image: Callable[[int], None] = lambda done: None,
) -> Iterator[Answer | Unreadable]:
    """Read, prepare and classify images; a file that cannot be read does not stop the others.

    Args:
        network: From images to logits: a ``Runtime``, or the training form.
        paths: Image files.
        preprocessing: How an image becomes input.
        batch: Images that go through the network together.
        on_image: Called with how many are done, for progress.

    Returns: One item for each path, in order. No more than a batch is in memory.

    Raises:
        MissingExtraError: Pillow is not installed.
        InputError: The network does not accept the images.
    """
    done = 0
    remaining = iter(paths)
    while group := list(islice(remaining, batch)):
        loaded = [_load(path, preprocessing) for path in group]
        images = [item for item in loaded if not isinstance(item, Unreadable)]
        logits = iter(network(np.stack(images)) if images else ())
        for path, item in zip(group, loaded, strict=True):
            done += 1
            if isinstance(item, Unreadable):
                yield item
            else:
                yield Answer(path=path, probabilities=softmax(next(logits)))
            on_image(done)


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Probabilities from logits, in float64; the last axis sums to 1."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    weights = np.exp(shifted)
    probabilities: NDArray[np.float64] = weights / weights.sum(axis=-1, keepdims=True)
    return probabilities


def folder_accuracy(answers: Sequence[Answer], labels: Sequence[str]) -> Accuracy | None:
    """Top-1 accuracy where each image's folder is named like its label; None where not."""
    number = {label: k for k, label in enumerate(labels)}
    wanted = [number.get(answer.path.absolute().parent.name) for answer in answers]
    if not wanted or None in wanted:
        return None
    right = sum(a.top(1)[0][0] == k for a, k in zip(answers, wanted, strict=True))
    return Accuracy(right=right, total=len(wanted))


def _load(path: Path, preprocessing: Preprocessing) -> Images | Unreadable:
    try:
        return load_image(path, preprocessing)
    except InputError as error:
        return Unreadable(path=path, reason=str(error))
