"""What ``torch.onnx.export`` makes of the trained network, on ONNX Runtime, as an arm."""

from __future__ import annotations

from typing import Any

from ...contest.arm import OpenedArm
from ...deployment import Deployment
from ...extras import import_for
from ...runtime.choose import read_plan
from ...steps import read_reference
from .elsewhere import make_elsewhere
from .session import caller, open_beside, place_text


def open_onnxruntime(
    *, directory: str, plan: str, batch: int, threads: int, **others: Any
) -> OpenedArm:
    """The unfused graph, for a fixed batch, on the plan's device.

    Raises:
        CheckpointError: The checkpoint is gone or was changed.
        BackendError: The export failed, or the plan's device is none that ONNX Runtime has here.
    """
    deployment = Deployment.open(directory)
    beside = read_plan(deployment, plan).plan
    model = make_elsewhere(f"{__name__}:export", directory=directory, batch=batch)
    session, load_ms = open_beside(model, beside, threads=threads)
    return OpenedArm(
        run=caller(session),
        note=f"torch.onnx.export of the training form; {place_text(beside, threads)}",
        load_ms=load_ms,
        model_bytes=len(model),
        parameters=deployment.source.get("parameters"),
        facts={"threads": threads},
    )


def export(*, directory: str, batch: int) -> bytes:
    """The unfused graph, serialized. Imports PyTorch.

    Raises:
        CheckpointError: The checkpoint is gone or was changed.
    """
    baselines = import_for("parnet_deploy.export.baselines", "export")
    trained = import_for("parnet_deploy.export.trained", "export")
    deployment = Deployment.open(directory)
    image = read_reference(deployment).image.repeat(batch, axis=0)
    data: bytes = baselines.unfused_graph(trained.require_training_form(deployment), image)
    return data
