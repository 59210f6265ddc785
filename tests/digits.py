"""The shipped digits network as a deployment that is built, small enough for any test."""

from __future__ import annotations

from pathlib import Path

from parnet_deploy.builder.build import BuildOptions, build_to_deployment
from parnet_deploy.export.export_step import export_to_deployment
from parnet_deploy.export.fuse_step import FuseOptions, fuse_to_deployment
from parnet_deploy.preprocess import read_labels

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "calibration" / "digits" / "eval"


def build_digits(directory: Path) -> Path:
    """Fuse, export and build it: one engine on one core, batches of 4 at most."""
    example = ROOT / "examples" / "digits"
    labels = read_labels(example / "labels.txt")
    fuse_to_deployment(example / "digits.pth.tar", directory, FuseOptions(labels=labels))
    export_to_deployment(directory)
    options = BuildOptions(backend="onnxruntime", placement="one", threads=1, max_batch=4)
    build_to_deployment(directory, options)
    return directory
