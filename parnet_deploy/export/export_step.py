"""The step ``export``: from fused weights to one proved ONNX graph per part, and a reference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from .. import __version__
from ..compare import ENGINE_TOLERANCE, FLOAT32_TOLERANCE, Parity, compare
from ..deployment import Deployment, step_key
from ..errors import DeploymentChangedError, DeploymentError
from ..input_size import InputSize
from ..preprocess import Preprocessing
from ..reference import REFERENCE, Reference, random_image
from ..runtime.onnxruntime.cpu import run_once
from ..spec import IMAGE, LOGITS
from ..steps import Progress, StepResult, read_report, skipped, write_report
from .fuse import FusedNetwork, run_network
from .fuse_step import FUSE_REPORT, FUSED, load_fused
from .to_onnx import OPSET, part_to_onnx
from .trained import training_form

EXPORT_VERSION = 1  # raise when the graphs of the same fused tensors would differ
EXPORT_REPORT = "reports/export.json"


def export_to_deployment(
    directory: Path,
    size: InputSize | None = None,
    *,
    on_part: Progress = lambda name: None,
) -> StepResult:
    """Write one ONNX graph per part, prove each on ONNX Runtime, and publish them.

    The reference that every engine is held against later is made here too: a random image and
    the training form's logits (the fused form's, if the checkpoint is no longer to be had).

    Args:
        directory: The deployment, fused.
        size: Accepted image sizes; None: what the last export had, else the preprocessing's.
        on_part: Called with the name of each proved part, for progress.

    Raises:
        SpecError: No ParNet of this kind can have such a size.
        CheckFailedError: A graph differs from torch. Nothing was published.
        DeploymentError: The directory is not a fused deployment, cannot be written, or was fused
            anew meanwhile.
    """
    deployment = Deployment.open(directory)
    fused = _fused_sha256(deployment)
    native = _native(directory)
    side = (native.height, native.width)
    size = size or deployment.input_size or InputSize(low=side, high=side)
    for height, width in (size.low, size.high):
        deployment.spec.check_size(height, width)
    key = step_key(fused=fused, size=size.to_json(), version=EXPORT_VERSION)
    if deployment.is_current("export", key):
        return skipped(directory, EXPORT_REPORT)
    network = load_fused(deployment)
    models = {part.name: part_to_onnx(network, part, size) for part in network.spec.parts}
    image = random_image(network.spec, *size.high)
    logits, origin = _reference_logits(deployment, network, image)
    checks = _check_parts(network, models, image, logits, on_part)
    for height, width in size.corners[1:]:
        other = random_image(network.spec, height, width)
        expected = run_network(network, torch.from_numpy(other))[LOGITS].numpy()
        checks += _check_parts(network, models, other, expected, on_part)
    report = {
        "input_size": str(size),
        "opset": OPSET,
        "reference": origin,
        "parts": {name: len(model.graph.node) for name, model in models.items()},
        "checks": [check.to_json() for check in checks],
    }
    with Deployment.edit(directory) as txn:
        if _fused_sha256(Deployment.open(directory)) != fused:
            raise DeploymentChangedError(
                f"deployment {directory}: other weights were fused while these were exported. "
                "Run: parnet-deploy export."
            )
        for name, model in models.items():
            data = model.SerializeToString(deterministic=True)
            txn.stage(f"onnx/{name}.onnx").write_bytes(data)
        txn.stage(REFERENCE).write_bytes(Reference(image=image, logits=logits).pack())
        write_report(txn.stage(EXPORT_REPORT), report)
        txn.describe(input_size=size, preprocessing=_fit(native, size).to_json())
        options = {"size": str(size)}
        versions = {"parnet_deploy": __version__, "onnx": onnx.__version__}
        txn.finish_step("export", key=key, options=options, versions=versions)
    return StepResult(path=directory, skipped=False, report=report)


def _fused_sha256(deployment: Deployment) -> str:
    record = deployment.artifacts.get(FUSED)
    if record is None:
        raise DeploymentError(
            f"deployment {deployment.path}: got no {FUSED}, expected fused weights. "
            "Run: parnet-deploy fuse model.pt."
        )
    return str(record["sha256"])


def _check_parts(
    network: FusedNetwork,
    models: Mapping[str, onnx.ModelProto],
    image: NDArray[np.float32],
    logits: NDArray[np.float32],
    on_part: Progress,
) -> list[Parity]:
    """Each part on the values that torch computes before it, then the chain from the image."""
    with torch.inference_mode():
        values = {k: v.numpy() for k, v in run_network(network, torch.from_numpy(image)).items()}
    height, width = image.shape[2:]
    chain = {IMAGE: image}
    checks = []
    for part in network.spec.parts:
        data = models[part.name].SerializeToString()
        got = run_once(data, {name: values[name] for name in part.inputs})[part.output]
        what = f"part {part.name} on ONNX Runtime at {height}x{width}"
        check = compare(got, values[part.output], tolerance=ENGINE_TOLERANCE, what=what)
        checks.append(check.require())
        chain |= run_once(data, {name: chain[name] for name in part.inputs})
        on_part(part.name)
    whole = f"all parts on ONNX Runtime against the reference at {height}x{width}"
    checks.append(compare(chain[LOGITS], logits, tolerance=ENGINE_TOLERANCE, what=whole).require())
    return checks


def _reference_logits(
    deployment: Deployment, network: FusedNetwork, image: NDArray[np.float32]
) -> tuple[NDArray[np.float32], str]:
    model = training_form(deployment)
    with torch.inference_mode():
        fused = run_network(network, torch.from_numpy(image))[LOGITS].numpy()
        if model is None:
            return fused, "fused form in PyTorch (checkpoint not found; proved equal when fused)"
        trained = model(torch.from_numpy(image)).numpy()
    what = "fused against training form at the exported size"
    compare(fused, trained, tolerance=FLOAT32_TOLERANCE, what=what).require()
    return trained, "training form in PyTorch"


def _native(directory: Path) -> Preprocessing:
    """The preprocessing as it was fused, whatever sizes were exported since."""
    fused = read_report(directory, FUSE_REPORT)["preprocessing"]
    return Preprocessing.from_json({k: v for k, v in fused.items() if k != "origin"})


def _fit(native: Preprocessing, size: InputSize) -> Preprocessing:
    """The preprocessing, with the size it makes brought inside what is accepted."""
    sides = zip((native.height, native.width), size.low, size.high, strict=True)
    height, width = (min(max(side, low), high) for side, low, high in sides)
    return replace(native, height=height, width=width)
