"""The step ``calibrate``: from images to ``calibration.json``, the range of every tensor.

Ranges alone prove nothing, so they are published together with the first precision that passes its
gates with them: images of another kind cannot replace a good table.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from .. import __version__
from ..deployment import Deployment, Transaction, step_key
from ..errors import DeploymentError, InputError, SpecError
from ..preprocess import Preprocessing
from ..spec import IMAGE, ModelSpec
from ..steps import Progress, write_report
from .calibration_set import MIN_IMAGES, LoadedSet, check_varied
from .observe import Observed, count_clipped, observe, open_observed
from .ranges import DEFAULT_PERCENTILE, METHODS, Histogram, Method, choose_range
from .table import TABLE, CalibrationTable, TensorRange, graphs_digest, read_table

CALIBRATE_VERSION = 1  # raise when the same images would give other ranges
CALIBRATE_REPORT = "reports/calibrate.json"
DEFAULT_SAMPLES = 256
HISTOGRAM_IMAGES = 32  # that are counted where the method does not need all of them
REPORT_BINS = 64


@dataclass(frozen=True, kw_only=True)
class CalibrateOptions:
    """How ranges are chosen, see ``ranges``."""

    method: Method = "minmax"
    percentile: float = DEFAULT_PERCENTILE

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            expected = ", ".join(METHODS)
            raise SpecError(f"method: got {self.method!r}, expected one of {expected}.")
        if not 50 < self.percentile <= 100:
            raise SpecError(
                f"percentile: got {self.percentile}, expected more than 50, at most 100."
            )


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Ranges that were measured, or found unchanged (``current``), and their report.

    The report has ``method``, ``images``, ``held_out``, ``tensors``, ``clipped``, ``worst_clipped``
    and ``histograms``.
    """

    key: str
    table: CalibrationTable
    report: Mapping[str, Any]
    current: bool
    options: Mapping[str, Any]

    def stage(self, txn: Transaction) -> None:
        """Publish with the transaction, unless the deployment has it already."""
        if self.current:
            return
        write_report(txn.stage(TABLE), self.table.to_json())
        write_report(txn.stage(CALIBRATE_REPORT), self.report)
        versions = {"parnet_deploy": __version__, "numpy": np.__version__}
        txn.finish_step("calibrate", key=self.key, options=self.options, versions=versions)


def calibrate(
    directory: Path,
    images: LoadedSet,
    held_out: LoadedSet,
    options: CalibrateOptions | None = None,
    *,
    on_stage: Progress = lambda text: None,
) -> Calibration:
    """Run the exported float32 parts on images and find the range of every tensor.

    Nothing is written; see ``quantize_to_deployment``.

    Args:
        directory: The deployment, exported.
        images: Calibration images, prepared.
        held_out: Others of the same kind: on them is counted what each range would clip.
        options: Choices of the user.
        on_stage: Called with what is being done, for progress.

    Raises:
        InputError: Too few images, of another size, or NaN on the way.
        DeploymentError: The deployment is not exported, or was changed.
    """
    options = options or CalibrateOptions()
    deployment = Deployment.open(directory)
    _check_images(deployment, images)
    key = _step_key(deployment, images, held_out, options)
    if deployment.is_current("calibrate", key):
        return read_calibration(deployment)
    chain = open_observed(deployment.spec, load_graphs(deployment))
    counted = HISTOGRAM_IMAGES if options.method == "minmax" else None
    observed = observe(
        chain,
        images.images,
        counted=counted,
        on_batch=lambda done, total: on_stage(f"image {done} of {total}"),
    )
    on_stage("looking back on held-out images")
    ranges = {
        name: choose_range(found, options.method, options.percentile)
        for name, found in observed.histograms.items()
    }
    clipped = count_clipped(chain, held_out.images, ranges)
    table = CalibrationTable(
        method=options.method,
        percentile=options.percentile if options.method == "percentile" else None,
        images=observed.images,
        data_sha256=images.sha256,
        model_sha256=graphs_digest(deployment),
        preprocessing=dict(deployment.preprocessing or {}),
        tensors=_tensors(observed, ranges, clipped.tensors),
        clipped=clipped.overall,
    )
    report = _report(deployment.spec, table, observed, images, held_out)
    return Calibration(key=key, table=table, report=report, current=False, options=asdict(options))


def read_calibration(deployment: Deployment) -> Calibration:
    """What the deployment has.

    Raises:
        DeploymentError: It is not calibrated, or the table is damaged or of another model.
    """
    table = read_table(deployment)
    record = deployment.steps["calibrate"]
    report = json.loads(deployment.read_bytes(CALIBRATE_REPORT))
    return Calibration(
        key=record["key"], table=table, report=report, current=True, options=record["options"]
    )


def load_graphs(deployment: Deployment) -> dict[str, onnx.ModelProto]:
    """The float32 graph of each part."""
    graphs_digest(deployment)  # raises: not exported
    return {
        part.name: onnx.load_from_string(deployment.read_bytes(f"onnx/{part.name}.onnx"))
        for part in deployment.spec.parts
    }


def read_preprocessing(deployment: Deployment) -> Preprocessing:
    """How the deployment prepares an image.

    Raises:
        DeploymentError: It does not say.
    """
    if deployment.preprocessing is None:
        raise DeploymentError(
            f"deployment {deployment.path}: got no preprocessing, expected how an image is "
            "prepared. Run: parnet-deploy fuse model.pt."
        )
    return Preprocessing.from_json(deployment.preprocessing)


def _check_images(deployment: Deployment, images: LoadedSet) -> None:
    if len(images) < MIN_IMAGES:
        raise InputError(
            f"{images.name} images: got {len(images)}, expected at least {MIN_IMAGES}. "
            "Add more images of the kind that the network will see."
        )
    check_varied(images, f"{images.name} images")
    size = deployment.input_size
    channels, height, width = images.images.shape[1:]
    if size is not None:
        size.check(deployment.spec, height, width)
    if channels != deployment.spec.in_channels:
        raise InputError(
            f"{images.name} images: got {channels} channels, expected "
            f"{deployment.spec.in_channels}. Give arrays with the network's channels."
        )


def _step_key(
    deployment: Deployment, images: LoadedSet, held_out: LoadedSet, options: CalibrateOptions
) -> str:
    return step_key(
        version=CALIBRATE_VERSION,
        graphs=graphs_digest(deployment),
        preprocessing=dict(deployment.preprocessing or {}),
        data=images.sha256,
        held_out=held_out.sha256,
        options=asdict(options),
    )


def _tensors(
    observed: Observed, ranges: Mapping[str, tuple[float, float]], clipped: Mapping[str, float]
) -> dict[str, TensorRange]:
    return {
        name: TensorRange(
            min=found.low,
            max=found.high,
            low=ranges[name][0],
            high=ranges[name][1],
            clipped=clipped.get(name, 0.0),
        )
        for name, found in observed.histograms.items()
    }


def _report(
    spec: ModelSpec,
    table: CalibrationTable,
    observed: Observed,
    images: LoadedSet,
    held_out: LoadedSet,
) -> dict[str, Any]:
    worst = max(table.tensors, key=lambda name: table.tensors[name].clipped)
    shown = [IMAGE, *(part.output for part in spec.parts)]
    return {
        "method": table.method,
        "percentile": table.percentile,
        "images": len(images),
        "held_out": len(held_out),
        "data_sha256": images.sha256,
        "tensors": len(table.tensors),
        "worst_clipped": {"tensor": worst, "share": table.tensors[worst].clipped},
        "clipped": table.clipped,
        "histograms": {
            name: _picture(observed.histograms[name], table.tensors[name]) for name in shown
        },
    }


def _picture(histogram: Histogram, found: TensorRange) -> dict[str, Any]:
    """A coarse histogram, for the eye."""
    counts = histogram.counts.reshape(REPORT_BINS, -1).sum(1)
    return {
        "min": histogram.low,
        "max": histogram.high,
        "low": found.low,
        "high": found.high,
        "counts": [int(count) for count in counts],
    }
