"""A deployment with an engine slow enough to be overloaded: random weights, real layers."""

from __future__ import annotations

from pathlib import Path

from parnet_deploy.builder.build import BuildOptions, build_to_deployment
from parnet_deploy.export.export_step import export_to_deployment
from parnet_deploy.export.fuse_step import FuseOptions, fuse_to_deployment
from parnet_deploy.preprocess import Preprocessing
from parnet_deploy.spec import ModelSpec
from tests.networks import random_state, write_state

SPEC = ModelSpec(planes=(32, 48, 64, 96), num_blocks=(2, 2, 2, 1), num_classes=10)


def make_deployment(directory: Path, *, side: int = 128, name: str = "loaded") -> Path:
    """Fuse, export and build it below a directory."""
    checkpoint = write_state(directory / f"{name}.pth", random_state(SPEC))
    path = directory / name
    image = Preprocessing(height=side, width=side)
    fuse_to_deployment(checkpoint, path, FuseOptions(preprocessing=image))
    export_to_deployment(path)
    build_to_deployment(path, BuildOptions(backend="onnxruntime", placement="one", threads=1))
    return path
