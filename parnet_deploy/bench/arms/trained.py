"""The trained network, as arms: only where PyTorch is installed and the checkpoint still there."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from ...deployment import Deployment
from ...errors import CheckpointError
from ...extras import import_for
from ...steps import read_reference
from .arm import OpenedArm

# By name: rooms beside each other do not import each other.
_baselines = import_for("parnet_deploy.export.baselines", "export")
_trained = import_for("parnet_deploy.export.trained", "export")


def open_torch(*, directory: str, **others: Any) -> OpenedArm:
    """The training form in eager PyTorch.

    Raises:
        CheckpointError: The checkpoint is gone or was changed.
    """
    started = time.perf_counter_ns()
    arm = _baselines.torch_arm(_training_form(Deployment.open(directory)))
    load_ms = (time.perf_counter_ns() - started) / 1e6
    return OpenedArm(run=arm.run, note=arm.note, load_ms=load_ms)


def open_onnxruntime(*, directory: str, batch: int, **others: Any) -> OpenedArm:
    """What ``torch.onnx.export`` makes of the training form, on ONNX Runtime.

    Raises:
        CheckpointError: The checkpoint is gone or was changed.
    """
    deployment = Deployment.open(directory)
    image = read_reference(deployment).image.repeat(batch, axis=0)
    arm = _baselines.unfused_arm(_training_form(deployment), image)
    return OpenedArm(run=arm.run, note=arm.note, load_ms=arm.load_ms)


def _training_form(deployment: Deployment) -> Any:
    model = _trained.training_form(deployment)
    if model is None:
        path = Path(str(deployment.source.get("path", "")))
        raise CheckpointError(f"the checkpoint {path} is gone or was changed")
    return model
