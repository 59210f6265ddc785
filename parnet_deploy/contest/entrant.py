"""What an arm is asked, what is known of it once it is open, and whether its answer is right."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np

from ..compare import ENGINE_TOLERANCE, compare
from ..errors import CheckFailedError
from .arm import ArmSpec, Array


class Check(TypedDict):
    """How the output was found right before anything was timed."""

    what: str
    error: float
    limit: float
    passed: bool


@dataclass(frozen=True, kw_only=True)
class Question:
    """Images (N, C, H, W), and the logits (N, K) that are right.

    ``logits`` None: nobody knows them, so only arms with a check of their own can be asked.
    """

    image: Array
    logits: Array | None


@dataclass(kw_only=True)
class Entrant:
    """An arm that is open.

    ``memory_mib`` is how much the process' resident memory grew from before the imports until
    after the warm-up: libraries count, a GPU's memory does not. ``first_ms``, ``memory_mib`` and
    ``check`` are there after ``Contest.check``. ``self_check`` is (what, error, limit).
    """

    spec: ArmSpec
    note: str
    precision: str
    facts: dict[str, Any]
    import_ms: float
    load_ms: float
    model_bytes: int | None
    parameters: int | None
    macs: int | None
    self_check: tuple[str, float, float] | None
    first_ms: float = 0.0
    memory_mib: float | None = None
    check: Check | None = None


def check_answer(entrant: Entrant, logits: Array, question: Question) -> Check:
    """Hold an answer against what is right.

    The same network in full precision is compared with the question's logits. A network of another
    kind, or one in lower precision, which no random image says anything of, has a check of its
    own, made when it was opened; here its logits must be finite and of the right shape.

    Raises:
        CheckFailedError: The arm computes something else, or nothing says that it does not.
    """
    what = f"arm {entrant.spec.name}"
    same = entrant.spec.network == "same"
    own = entrant.self_check
    if same and question.logits is not None and (entrant.precision == "fp32" or own is None):
        parity = compare(logits, question.logits, tolerance=ENGINE_TOLERANCE, what=what).require()
        return Check(what="the reference", error=parity.error, limit=parity.tolerance, passed=True)
    if own is None:
        raise CheckFailedError(
            f"check: {what}: got neither logits to compare with nor a check of its own, expected "
            "one of them. Nothing was timed."
        )
    checked, error, limit = own
    if not error <= limit:  # NaN too
        raise CheckFailedError(
            f"check: {what}: {checked}: got error {error:.2e}, expected {limit:.0e} or less. "
            "Nothing was timed."
        )
    if logits.ndim != 2 or len(logits) != len(question.image) or not logits.size:
        raise CheckFailedError(
            f"check: {what}: got logits of shape {logits.shape}, expected one row for each of "
            f"{len(question.image)} images. Nothing was timed."
        )
    if not np.isfinite(logits).all():
        raise CheckFailedError(f"check: {what}: NaN or Inf in the output. Nothing was timed.")
    return Check(what=checked, error=error, limit=limit, passed=True)
