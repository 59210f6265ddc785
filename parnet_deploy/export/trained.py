"""What is known of the training: the network in training form and how its images were prepared."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ..deployment import Deployment
from ..errors import CheckpointError, SpecError
from ..preprocess import Preprocessing
from ..spec import ModelSpec
from ..storage.files import hash_file
from .checkpoint import Checkpoint, load_checkpoint
from .model import ParNet


def training_form(deployment: Deployment) -> ParNet | None:
    """The network as it was trained, if the checkpoint is still where it was; else None."""
    source = deployment.source
    path = Path(str(source.get("path", "")))
    try:
        if not path.is_file() or hash_file(path)[0] != source.get("sha256"):
            return None
        loaded = load_checkpoint(
            path, weights=source["weights"], activation=deployment.spec.activation
        )
    except (CheckpointError, OSError):
        return None
    with torch.device("meta"):
        model = ParNet(loaded.spec)
    model.load_state_dict(dict(loaded.tensors), assign=True, strict=False)
    return model.eval()


def trained_preprocessing(checkpoint: Checkpoint) -> Preprocessing:
    """What the training arguments say, where they are usable; else the authors' evaluation."""
    args, spec = checkpoint.training_args, checkpoint.spec
    side = 224 + -224 % spec.size_multiple
    chosen = Preprocessing(height=side, width=side)
    match args.get("input_size"):
        case [int(), int(height), int(width)]:
            chosen = _try(chosen, spec, height=height, width=width)
    for name in ("mean", "std"):
        match args.get(name):
            case [int() | float() as r, int() | float() as g, int() | float() as b]:
                chosen = _try(chosen, spec, **{name: (float(r), float(g), float(b))})
    chosen = _try(chosen, spec, interpolation=args.get("interpolation"))
    chosen = _try(chosen, spec, resize=args.get("resize"))
    return _try(chosen, spec, crop_fraction=args.get("crop_pct"))


def _try(base: Preprocessing, spec: ModelSpec, **change: Any) -> Preprocessing:
    """The change, if it gives a legal preprocessing; else the base."""
    try:
        changed = replace(base, **change)
        spec.check_size(changed.height, changed.width)
    except (SpecError, TypeError):
        return base
    return changed
