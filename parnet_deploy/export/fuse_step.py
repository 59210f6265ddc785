"""The step ``fuse``: from a checkpoint to proved, fused weights in a deployment."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors

from .. import __version__
from ..deployment import Deployment, step_key
from ..errors import SpecError
from ..preprocess import Preprocessing
from ..spec import Activation, ModelSpec
from ..steps import Progress, StepResult, is_current, skipped, write_report
from .checkpoint import Checkpoint, WeightChoice, load_checkpoint
from .checkpoint_file import hash_checkpoint
from .fuse import FusedNetwork, fuse_network
from .health import measure_batch_norms, measure_weights
from .prove import FuseProof, prove
from .trained import trained_preprocessing

FUSE_VERSION = 1  # raise when the fused tensors of the same weights would differ
FUSED = "fused.safetensors"
FUSE_REPORT = "reports/fuse.json"


@dataclass(frozen=True, kw_only=True)
class FuseOptions:
    """What the user may choose when fusing; None means "what the checkpoint says".

    ``image_options`` are single fields of ``Preprocessing`` that override what is said there.
    """

    weights: WeightChoice = "auto"
    activation: Activation | None = None
    preprocessing: Preprocessing | None = None
    image_options: Mapping[str, Any] = field(default_factory=dict)
    labels: tuple[str, ...] | None = None


def fuse_to_deployment(
    checkpoint: Path,
    directory: Path,
    options: FuseOptions | None = None,
    *,
    on_block: Progress = lambda name: None,
) -> StepResult:
    """Fuse a checkpoint, prove the result and publish it as a deployment.

    Args:
        checkpoint: The file that training wrote; it is only read.
        directory: The deployment; made if there is none.
        options: Choices of the user.
        on_block: Called with the name of each proved block, for progress.

    Raises:
        CheckpointError: The weights cannot be used.
        CheckFailedError: The fused network is not the trained one. Nothing was published.
        DeploymentError: The directory cannot be written.
    """
    options = options or FuseOptions()
    key = _fuse_key(checkpoint, options)
    if is_current(directory, "fuse", key):
        source = _note_path(checkpoint, directory)
        return skipped(directory, FUSE_REPORT, source=source)
    loaded = load_checkpoint(checkpoint, weights=options.weights, activation=options.activation)
    preprocessing, origin = trained_preprocessing(loaded)
    if options.preprocessing is not None:
        preprocessing, origin = options.preprocessing, "given"
    if options.image_options:
        preprocessing = replace(preprocessing, **options.image_options)
        origin = f"{origin}; {', '.join(sorted(options.image_options))} given"
    loaded.spec.check_size(preprocessing.height, preprocessing.width)
    _check_labels(options.labels, loaded.spec)
    network = fuse_network(loaded.tensors, loaded.spec)
    proof = prove(loaded.tensors, network, on_block=on_block).require()
    report = _fuse_report(loaded, network, proof)
    report["preprocessing"] = {**preprocessing.to_json(), "origin": origin}
    with Deployment.edit(directory, create=True) as txn:
        txn.stage(FUSED).write_bytes(_pack(network))
        write_report(txn.stage(FUSE_REPORT), report)
        txn.describe(
            spec=loaded.spec,
            source=_source(loaded),
            preprocessing=preprocessing.to_json(),
            labels=options.labels,
        )
        txn.finish_step(
            "fuse",
            key=key,
            options=_plain(options),
            versions={"parnet_deploy": __version__, "torch": torch.__version__},
        )
    return StepResult(path=directory, skipped=False, report=report)


def _note_path(checkpoint: Path, directory: Path) -> dict[str, Any]:
    """The same file at another place: later steps look for it there. Returns the source."""
    known = Deployment.open(directory).source
    source = {**known, "path": str(checkpoint.resolve())}
    if known != source:
        with Deployment.edit(directory) as txn:
            txn.describe(source=source)
    return source


def load_fused(deployment: Deployment) -> FusedNetwork:
    """The fused weights of a deployment, checked against their hash.

    Raises:
        DeploymentError: The deployment has none, or they were changed.
    """
    return FusedNetwork(
        spec=deployment.spec, tensors=load_safetensors(deployment.read_bytes(FUSED))
    )


def _check_labels(labels: tuple[str, ...] | None, spec: ModelSpec) -> None:
    if labels is not None and len(labels) != spec.num_classes:
        raise SpecError(
            f"labels: got {len(labels)}, expected {spec.num_classes}, one for each class. "
            "Give a file with one label a line."
        )


def _fuse_key(checkpoint: Path, options: FuseOptions) -> str:
    sha256 = hash_checkpoint(checkpoint)
    return step_key(checkpoint=sha256, options=_plain(options), version=FUSE_VERSION)


def _plain(options: FuseOptions) -> dict[str, Any]:
    chosen = options.preprocessing
    return {
        "weights": options.weights,
        "activation": options.activation,
        "preprocessing": None if chosen is None else chosen.to_json(),
        "image_options": dict(options.image_options),
        "labels": None if options.labels is None else list(options.labels),
    }


def _fuse_report(checkpoint: Checkpoint, network: FusedNetwork, proof: FuseProof) -> dict[str, Any]:
    return {
        "source": _source(checkpoint),
        "spec": checkpoint.spec.to_json(),
        "proof": proof.to_json(),
        "totals": proof.totals(),
        "weights": [figures.to_json() for figures in measure_weights(network)],
        "batch_norms": [figures.to_json() for figures in measure_batch_norms(checkpoint.tensors)],
    }


def _source(checkpoint: Checkpoint) -> dict[str, Any]:
    return {
        "path": str(checkpoint.path.resolve()),
        "sha256": checkpoint.sha256,
        "layout": checkpoint.layout,
        "weights": checkpoint.weights,
        "activation": checkpoint.activation.to_json(),
        "parameters": sum(t.numel() for n, t in checkpoint.tensors.items() if "running" not in n),
        "training_args": dict(checkpoint.training_args),
        "notes": list(checkpoint.notes),
    }


def _pack(network: FusedNetwork) -> bytes:
    """Equal weights give equal bytes: of several metadata keys safetensors mixes the order."""
    about = {"format": "fused", "spec": network.spec.to_json()}
    text = json.dumps(about, sort_keys=True)
    return save_safetensors(dict(network.tensors), metadata={"parnet_deploy": text})
