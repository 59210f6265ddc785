"""How far a network in lower precision is from the float32 one, on the same images.

Accuracy alone is no measure of fidelity: clipping can even raise it on noisy images. Agreement and
the signal-to-noise ratio of the logits see damage that accuracy does not.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .calibration_set import Labels

MAX_DB = 200.0  # what an exact answer is given, for infinity is no JSON
MIN_DB = -200.0

Array = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Score:
    """One network against the float32 reference on one set.

    ``accuracy`` and ``reference_accuracy`` are shares, None where labels are not known.
    ``agreement`` is the share of images with the reference's top answer. ``sqnr_db`` compares all
    logits. ``finite`` is false if any logit is NaN or Inf.
    """

    images: int
    agreement: float
    sqnr_db: float
    finite: bool
    accuracy: float | None = None
    reference_accuracy: float | None = None

    @property
    def drop_points(self) -> float | None:
        """Points of accuracy lost (negative: gained), None where labels are not known."""
        if self.accuracy is None or self.reference_accuracy is None:
            return None
        return 100 * (self.reference_accuracy - self.accuracy)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {**asdict(self), "drop_points": self.drop_points}


def score(got: Array, reference: Array, classes: Labels | None = None) -> Score:
    """Compare logits (N, K) of the same images in the same order."""
    top, expected = got.argmax(1), reference.argmax(1)
    known = classes is not None
    return Score(
        images=len(got),
        agreement=float((top == expected).mean()),
        sqnr_db=sqnr_db(got, reference),
        finite=bool(np.isfinite(got).all()),
        accuracy=float((top == classes).mean()) if known else None,
        reference_accuracy=float((expected == classes).mean()) if known else None,
    )


def sqnr_db(got: NDArray[Any], reference: NDArray[Any]) -> float:
    """Signal-to-quantization-noise ratio in decibel: 20 means the noise is a tenth of the signal.

    Between ``MIN_DB`` and ``MAX_DB``; what is not finite has ``MIN_DB``.
    """
    if not np.isfinite(got).all():
        return MIN_DB
    signal = float(np.sum(np.square(reference, dtype=np.float64)))
    noise = float(np.sum(np.square(got.astype(np.float64) - reference)))
    if noise <= 0:
        return MAX_DB
    if signal <= 0:
        return MIN_DB
    return float(np.clip(10 * np.log10(signal / noise), MIN_DB, MAX_DB))
