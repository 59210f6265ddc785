"""A known input through the engines at open, against the logits stored when they were built."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import CheckFailedError, DeploymentCorruptError

TOLERANCE = 1e-4
"""Relative to the largest logit, if the plan names none."""


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
        data: An npz file with ``x`` (N, 3, H, W) and ``logits`` (N, K).
        tolerance: Largest difference, relative to the largest stored logit.
        where: For messages.

    Returns: The difference and the tolerance.

    Raises:
        CheckFailedError: The engines compute something else here.
        DeploymentCorruptError: The data is not a canary.
    """
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as stored:
            x, expected = stored["x"], stored["logits"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise DeploymentCorruptError(
            f"canary of {where}: got {error!r}, expected x and logits. Run: parnet-deploy build."
        ) from error
    limit = TOLERANCE if tolerance is None else float(tolerance)
    logits = run(x)
    scale = float(np.abs(expected).max(initial=0.0)) or 1.0
    difference = float(np.abs(logits - expected).max(initial=0.0)) / scale
    if not difference <= limit:  # so that NaN fails
        raise CheckFailedError(
            f"canary of {where}: got a difference of {difference:.3g} of the largest logit, "
            f"expected at most {limit:.3g}: the engines compute something else on this machine. "
            "Run: parnet-deploy build."
        )
    return {"difference": difference, "tolerance": limit}
