"""The parts of a deployment's network, and which steps are not done yet."""

from __future__ import annotations

from typing import Any

from ..deployment import Deployment
from ..preprocess import Preprocessing

_STEPS = ("fuse", "export", "build", "verify", "bench")


def describe_parts(
    deployment: Deployment, preprocessing: Preprocessing | None
) -> dict[str, dict[str, Any]]:
    """What each part reads, writes and costs, for the largest accepted image.

    Before the export there is no largest image: that of the preprocessing counts, or the smallest
    that the network takes.

    Returns: By part: reads, writes, shape (of one sample), blocks, macs.
    """
    spec = deployment.spec
    if deployment.input_size is not None:
        height, width = deployment.input_size.high
    elif preprocessing is not None:
        height, width = preprocessing.height, preprocessing.width
    else:
        height = width = spec.size_multiple
    macs, tensors = spec.macs(height, width), spec.tensors
    return {
        part.name: {
            "reads": list(part.inputs),
            "writes": part.output,
            "shape": list(tensors[part.output].shape(height, width)),
            "blocks": len(part.blocks),
            "macs": macs[part.name],
        }
        for part in spec.parts
    }


def missing_steps(deployment: Deployment) -> list[str]:
    """Steps on the way from a checkpoint to a measured plan that were not done, in order."""
    kinds = {name.partition(":")[0] for name in deployment.steps}
    return [kind for kind in _STEPS if kind not in kinds]
