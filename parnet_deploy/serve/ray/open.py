"""A replica's service: its models, opened on the GPUs and cores that Ray gave it."""

from __future__ import annotations

from pathlib import Path

from ...errors import DeploymentError
from ...signing.trust import open_trusted
from ..model.options import ModelOptions
from ..service.inference import InferenceService
from ..service.options import ServiceOptions
from .need import answer_digest
from .settings import ModelSettings, ReplicaSettings


def open_service(settings: ReplicaSettings) -> InferenceService:
    """The service of a replica, not yet started.

    Ray shows the process only its GPUs, numbered from 0: so the plans' own are counted anew.

    Raises:
        DeploymentError: The node has no such deployment, or another one than it should.
    """
    models = []
    for model in settings.models:
        _check_digest(model)
        models.append(
            ModelOptions(
                path=Path(model.path),
                plan=model.plan,
                slots=settings.slots,
                threads=settings.threads,
                packed_devices=True,
            )
        )
    options = ServiceOptions(
        max_queue=settings.max_queue,
        max_delay_ms=settings.max_delay_ms,
        deadline_s=settings.deadline_ms / 1e3,
        max_image_pixels=settings.max_image_pixels,
    )
    return InferenceService(models, options)


def _check_digest(model: ModelSettings) -> None:
    digest = answer_digest(open_trusted(model.path), model.plan)
    if model.digest not in (None, digest):
        raise DeploymentError(
            f"deployment {model.path}, plan {model.plan}: got digest {digest}, expected "
            f"{model.digest}, as on the machine that put it on the cluster. Copy it to this node, "
            "or deploy again."
        )
