"""A ParNet so small that what stands around its engine shows."""

from __future__ import annotations

from pathlib import Path

import torch

from parnet_deploy.builder.build import BuildOptions, build_to_deployment
from parnet_deploy.export.export_step import export_to_deployment
from parnet_deploy.export.fuse_step import FuseOptions, fuse_to_deployment
from parnet_deploy.export.model import ParNet
from parnet_deploy.input_size import InputSize
from parnet_deploy.spec import ModelSpec

SPEC = ModelSpec(planes=(4, 4, 4, 8), num_blocks=(2, 2, 2, 1), num_classes=10)
INPUT = "1x3x32x32"


def build_tiny(folder: Path) -> tuple[Path, str]:
    """A deployment with one engine of one thread; returns its directory and the plan's key."""
    directory, checkpoint = folder / "tiny", folder / "tiny.pth"
    torch.save(ParNet(SPEC).state_dict(), checkpoint)
    fuse_to_deployment(checkpoint, directory, FuseOptions(activation="silu"))
    export_to_deployment(directory, InputSize.parse("32"))
    options = BuildOptions(placement="one", threads=1)
    return directory, str(build_to_deployment(directory, options).report["plan"])
