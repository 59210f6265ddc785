"""Functions that make models, and an arm that is wrong; run in processes of their own."""

from __future__ import annotations

import sys
from typing import Any

from parnet_deploy.contest.arm import OpenedArm
from parnet_deploy.deployment import Deployment
from parnet_deploy.errors import CheckpointError, EngineBuildError
from parnet_deploy.export.baselines import torch_arm
from parnet_deploy.export.trained import require_training_form

HERE = __name__


def make_text(*, text: str) -> bytes:
    """Prints, too, as exporters do."""
    print("noise on stdout")
    print("noise on stderr", file=sys.stderr)
    return text.encode()


def make_nothing(*, kind: str) -> bytes:
    """Fails in one of several ways."""
    errors = {
        "checkpoint": CheckpointError("the checkpoint is gone"),
        "build": EngineBuildError("cannot join"),
        "other": ZeroDivisionError("a bug"),
    }
    raise errors[kind]


def open_perturbed(*, directory: str, **others: Any) -> OpenedArm:
    """The trained network with one bias of its classifier moved."""
    model = require_training_form(Deployment.open(directory))
    model.get_parameter(next(n for n, _ in model.named_parameters() if n.endswith("bias"))).data[
        0
    ] += 1.0
    return OpenedArm(run=torch_arm(model, threads=1).run, note="perturbed")
