"""What is known of the training: the network in training form and how its images were prepared."""

from __future__ import annotations

from pathlib import Path

import torch

from ..deployment import Deployment
from ..errors import CheckpointError, SpecError
from ..preprocess import Preprocessing
from ..storage.files import hash_file
from .checkpoint import Checkpoint, load_checkpoint
from .model import ParNet


def training_form(deployment: Deployment) -> ParNet | None:
    """The network as it was trained, if the checkpoint is still where it was; else None."""
    source = deployment.source
    path, weights = Path(str(source.get("path", ""))), source.get("weights")
    if weights not in ("model", "ema"):  # not written by the step "fuse"
        return None
    try:
        if not path.is_file() or hash_file(path)[0] != source.get("sha256"):
            return None
        loaded = load_checkpoint(path, weights=weights, activation=deployment.spec.activation)
    except (CheckpointError, OSError):
        return None
    with torch.device("meta"):
        model = ParNet(loaded.spec)
    model.load_state_dict(dict(loaded.tensors), assign=True, strict=False)
    return model.eval()


def require_training_form(deployment: Deployment) -> ParNet:
    """The network as it was trained.

    Raises:
        CheckpointError: The checkpoint is gone or was changed.
    """
    model = training_form(deployment)
    if model is None:
        path = Path(str(deployment.source.get("path", "")))
        raise CheckpointError(f"the checkpoint {path} is gone or was changed")
    return model


def trained_preprocessing(checkpoint: Checkpoint) -> tuple[Preprocessing, str]:
    """What the training arguments say, else the authors' evaluation; and which of the two."""
    spec = checkpoint.spec
    if checkpoint.training_args.get("input_size") or checkpoint.training_args.get("img_size"):
        try:
            found = Preprocessing.from_timm(checkpoint.training_args)
            spec.check_size(found.height, found.width)
        except SpecError as error:
            why = f"the checkpoint's own arguments cannot be used ({error})"
        else:
            return found, "from the checkpoint's training arguments"
    else:
        why = "the checkpoint does not tell"
    side = 224 + -224 % spec.size_multiple
    return Preprocessing(height=side, width=side), f"the authors' evaluation, for {why}"
