"""The trained network in PyTorch, as arms: only where it and the checkpoint are still there."""

from __future__ import annotations

import time
from typing import Any

from ...contest.arm import OpenedArm
from ...deployment import Deployment
from ...extras import import_for
from ...runtime.choose import read_plan
from ...steps import read_reference
from .session import on_cpu

# By name: rooms beside each other do not import each other.
_baselines = import_for("parnet_deploy.export.baselines", "export")
_trained = import_for("parnet_deploy.export.trained", "export")


def open_torch(
    *, directory: str, plan: str, batch: int, threads: int, compiled: bool = False, **others: Any
) -> OpenedArm:
    """The training form in PyTorch, eager or compiled, on the plan's kind of device.

    One call is part of opening: a compiler works in it.

    Raises:
        CheckpointError: The checkpoint is gone or was changed.
        DeviceUnavailableError: The plan runs on a GPU and this PyTorch has none.
        BackendError: torch.compile failed.
    """
    started = time.perf_counter_ns()
    deployment = Deployment.open(directory)
    beside = read_plan(deployment, plan).plan
    device = None if on_cpu(beside) else beside.placement.devices[0]
    model = _trained.require_training_form(deployment)
    if compiled:
        image = read_reference(deployment).image.repeat(batch, axis=0)
        arm = _baselines.compiled_arm(model, image, threads=threads, gpu=device)
    else:
        arm = _baselines.torch_arm(model, threads=threads, gpu=device)
    load_ms = (time.perf_counter_ns() - started) / 1e6
    return OpenedArm(
        run=arm.run,
        note=arm.note,
        load_ms=load_ms,
        parameters=deployment.source.get("parameters"),
        facts={"threads": threads},
    )
