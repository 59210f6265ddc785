"""Split and roofline for a report, or why they cannot be had."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...errors import MissingExtraError, ParnetDeployError
from ...extras import import_for
from ...runtime.backend import device_family
from ..result import Roofline, Split, Subject
from .split import measure_split

_CAUGHT = (ParnetDeployError, OSError, ValueError, RuntimeError)
_PEAK_OF = "the peak that is measured is that of float32 on the CPU"
_UNSEEN = (
    "no part of the network was seen by itself: only ONNX Runtime's profiler looks into engines"
)


def explain(
    directory: Path,
    subject: Subject,
    image: NDArray[np.float32],
    *,
    threads: int,
    on_stage: Callable[[str], None] = lambda text: None,
) -> tuple[Split | None, Roofline | None, dict[str, str]]:
    """Where the time goes and how near the machine's limit that is; and why not, by name.

    Args:
        directory: The deployment.
        subject: What was measured.
        image: (N, C, H, W), as in the timed calls.
        threads: Cores.
        on_stage: Called with what is being done, for progress.
    """
    try:
        split = measure_split(directory, subject["plan"], image, threads=threads, on_stage=on_stage)
    except _CAUGHT as error:  # the figures of the contest stand without it
        return None, None, {"split": str(error), "roofline": "there is no split"}
    if device_family(subject["backend"]) != "cpu" or subject["precision"] != "fp32":
        return split, None, {"roofline": f"the plan is another, and {_PEAK_OF}"}
    on_stage("what the machine can do at most")
    try:
        module = import_for("parnet_deploy.bench.split.roofline", "export")
    except MissingExtraError as error:
        return split, None, {"roofline": str(error)}
    if not split["parts"]:
        return split, None, {"roofline": _UNSEEN}
    try:
        roofline: Roofline = module.measure_roofline(subject, split, threads=threads)
    except _CAUGHT as error:
        return split, None, {"roofline": str(error)}
    module.add_shares(split, roofline, batch=subject["batch"])
    return split, roofline, {}
