"""A known input through the engines at open, against the logits stored when they were built."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..compare import ENGINE_TOLERANCE, compare
from ..errors import CheckFailedError
from ..reference import Reference


def check_canary(
    run: Callable[[NDArray[np.float32]], NDArray[np.float32]],
    data: bytes,
    tolerance: float | None,
    *,
    where: str,
) -> dict[str, Any]:
    """Run the stored input and compare.

    Args:
        run: From images to logits.
        data: A packed ``Reference``.
        tolerance: Largest difference, relative to the largest stored logit.
        where: For messages.

    Returns: The error and the tolerance, as plain JSON types.

    Raises:
        CheckFailedError: The engines compute something else here.
        DeploymentCorruptError: The data is not a reference.
    """
    reference = Reference.unpack(data, where)
    limit = ENGINE_TOLERANCE if tolerance is None else float(tolerance)
    parity = compare(
        run(reference.image), reference.logits, tolerance=limit, what=f"canary of {where}"
    )
    if not parity:
        raise CheckFailedError(
            f"{parity}. The engines compute something else on this machine. "
            "Run: parnet-deploy build."
        )
    return parity.to_json()
