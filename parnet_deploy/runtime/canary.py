"""A known input through the engines at open, against the logits stored when they were built."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..compare import ENGINE_TOLERANCE, compare
from ..errors import CheckFailedError, DeploymentCorruptError
from ..reference import Reference


def check_canary(
    run: Callable[[NDArray[np.float32]], NDArray[np.float32]],
    data: bytes,
    tolerance: object,
    *,
    where: str,
) -> dict[str, Any]:
    """Run the stored input and compare.

    Args:
        run: From images to logits.
        data: A packed ``Reference``.
        tolerance: Largest difference, relative to the largest stored logit; None: the usual one.
        where: For messages.

    Returns: The error and the tolerance, as plain JSON types.

    Raises:
        CheckFailedError: The engines compute something else here.
        DeploymentCorruptError: The data is not a reference, or the tolerance no such number.
    """
    reference = Reference.unpack(data, where)
    limit = ENGINE_TOLERANCE if tolerance is None else _limit(tolerance, where)
    parity = compare(
        run(reference.image), reference.logits, tolerance=limit, what=f"canary of {where}"
    )
    if not parity:
        raise CheckFailedError(
            f"{parity}. The engines compute something else on this machine. "
            "Run: parnet-deploy build."
        )
    return parity.to_json()


def _limit(tolerance: object, where: str) -> float:
    number = isinstance(tolerance, int | float) and not isinstance(tolerance, bool)
    if not number or not 0 < tolerance <= sys.float_info.max:  # type: ignore[operator]
        raise DeploymentCorruptError(
            f"canary of {where}: got tolerance {tolerance!r:.80}, expected a positive number. "
            "Run: parnet-deploy build."
        )
    return float(tolerance)  # type: ignore[arg-type]
