"""Small random networks for tests, and the files that training would write of them.

BatchNorm statistics and affine are always random: a fresh BatchNorm (mean 0, variance 1, scale 1,
shift 0) hides most mistakes of a fusion.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from parnet_deploy.export.model import ParNet
from parnet_deploy.spec import ModelSpec

State = dict[str, Tensor]

SPEC = ModelSpec(planes=(4, 6, 8, 12), num_blocks=(2, 3, 2, 1), num_classes=5)

SPECS: dict[str, ModelSpec] = {
    "two": ModelSpec(planes=(4, 6, 8), num_blocks=(2, 3, 1), num_classes=3),
    "three": SPEC,
    "odd-relu": ModelSpec(
        planes=(5, 7, 6, 9), num_blocks=(3, 1, 2, 1), num_classes=2, activation="relu"
    ),
    "four": ModelSpec(planes=(3, 5, 6, 4, 7), num_blocks=(1, 2, 1, 2, 1), num_classes=4),
    "five-grey": ModelSpec(
        planes=(4, 3, 2, 4, 6, 5), num_blocks=(2, 1, 1, 1, 2, 1), num_classes=1, in_channels=1
    ),
}
"""Every number of streams from 2 to 5, streams without a block, odd widths where they are legal."""


def random_state(spec: ModelSpec, seed: int = 0) -> State:
    """A training-form state dict under the released names, as a trained network might have it.

    Means of identity BatchNorms stay within what the activation can give, so that the activation
    can be told and there is nothing to warn of.
    """
    state = dict(ParNet(spec).state_dict())
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in state.items():
        if not tensor.is_floating_point():
            state[name] = torch.tensor(100)
        elif name.endswith("running_var"):
            state[name] = 0.05 + 2 * torch.rand(tensor.shape, generator=generator)
        elif name.endswith("rbr_identity.running_mean"):
            low = 0.0 if spec.activation == "relu" else -0.2
            state[name] = low + (0.5 - low) * torch.rand(tensor.shape, generator=generator)
        elif tensor.dim() > 1:
            fan_in = tensor[0].numel()
            state[name] = torch.randn(tensor.shape, generator=generator) / fan_in**0.5
        elif name.endswith("weight"):
            state[name] = 0.3 + torch.rand(tensor.shape, generator=generator)
        else:
            state[name] = 0.3 * torch.randn(tensor.shape, generator=generator)
    return state


def random_network(spec: ModelSpec, seed: int = 0) -> ParNet:
    """The training form with ``random_state``."""
    network = ParNet(spec)
    network.load_state_dict(random_state(spec, seed))
    return network


def write_release(path: Path, state: State, **others: Any) -> Path:
    """The authors' layout: a dict with ``state_dict`` under ``module.`` and a Namespace."""
    content = {
        "epoch": 3,
        "arch": "ParNet",
        "version": 2,
        "state_dict": {f"module.{name}": tensor for name, tensor in state.items()},
        "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]},
        "args": argparse.Namespace(lr=0.1, model="ParNet"),
        **others,
    }
    torch.save(content, path)
    return path


def write_state(path: Path, state: State, prefix: str = "") -> Path:
    """A plain state dict, in safetensors if the suffix says so."""
    named = {prefix + name: tensor for name, tensor in state.items()}
    if path.suffix == ".safetensors":
        save_file(named, path)
    else:
        torch.save(named, path)
    return path


def random_image(spec: ModelSpec, batch: int = 1, height: int = 0, width: int = 0) -> Tensor:
    """Random pixels, of the smallest legal size if none is given."""
    side = spec.size_multiple
    generator = torch.Generator().manual_seed(1)
    shape = (batch, spec.in_channels, height or side, width or side)
    return torch.randn(shape, generator=generator)
