"""Compare two answers: how far apart, where, and which tolerance would have passed."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import CheckFailedError

FLOAT64_TOLERANCE = 1e-10  # fused against training form, float64
FLOAT32_TOLERANCE = 1e-5  # fused against training form, float32
ENGINE_TOLERANCE = 1e-4  # any float32 engine against the float32 reference


@dataclass(frozen=True, kw_only=True)
class Parity:
    """Outcome of a comparison; true if it passed.

    ``error`` is the largest absolute difference divided by the largest absolute reference value
    (so 1e-5 means "1e-5 of the largest logit"); it is also the smallest tolerance that passes.
    """

    what: str
    error: float
    max_abs: float
    tolerance: float
    worst: tuple[int, ...]
    finite: bool
    top1_equal: float | None = None

    def __bool__(self) -> bool:
        return self.finite and self.error <= self.tolerance

    def __str__(self) -> str:
        if not self.finite:
            return f"{self.what}: NaN or Inf in the output"
        return (
            f"{self.what}: error {self.error:.2e} of the largest value, tolerance "
            f"{self.tolerance:.0e} (worst at {self.worst}, {self.max_abs:.2e} apart)"
        )

    def require(self) -> Parity:
        """Return self, or raise.

        Raises:
            CheckFailedError: The comparison did not pass.
        """
        if not self:
            raise CheckFailedError(f"parity: {self}.")
        return self

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types, with the verdict."""
        return {**asdict(self), "passed": bool(self)}


def compare(
    got: NDArray[Any], reference: NDArray[Any], *, tolerance: float, what: str = "output"
) -> Parity:
    """Compare an answer with its reference.

    ``top1_equal`` is the share of rows with the same largest entry, for logits (N, K).

    Raises:
        CheckFailedError: The shapes differ.
    """
    if got.shape != reference.shape:
        raise CheckFailedError(
            f"parity: {what}: got shape {got.shape}, expected {reference.shape}."
        )
    finite = bool(np.isfinite(got).all() and np.isfinite(reference).all())
    with np.errstate(invalid="ignore"):  # Inf - Inf; what is not finite fails anyway
        difference = np.abs(got.astype(np.float64) - reference.astype(np.float64))
    largest = float(np.abs(reference).max(initial=0.0))
    max_abs = float(difference.max(initial=0.0))
    index = np.unravel_index(int(difference.argmax()), got.shape) if got.size else ()
    rows = reference.ndim == 2 and got.size > 0
    return Parity(
        what=what,
        error=max_abs / largest if largest > 0 else max_abs,
        max_abs=max_abs,
        tolerance=float(tolerance),
        worst=tuple(int(i) for i in index),
        finite=finite,
        top1_equal=float((got.argmax(1) == reference.argmax(1)).mean()) if rows else None,
    )
