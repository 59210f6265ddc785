"""ParNets with random weights and random BatchNorm statistics, for measuring only.

Fresh BatchNorm (mean 0, variance 1) would make many folds trivial, so the statistics are random.
"""

from __future__ import annotations

from pathlib import Path

import torch

from parnet_deploy.export.model import ParNet
from parnet_deploy.spec import RELEASED


def random_parnet(variant: str, seed: int = 0) -> ParNet:
    """A released configuration with random weights that keep activations in a normal range."""
    torch.manual_seed(seed)
    model = ParNet(RELEASED[variant])
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            shape = module.running_mean.shape
            module.running_mean.copy_(0.3 * torch.randn(shape))
            module.running_var.copy_(0.5 + torch.rand(shape))
            with torch.no_grad():
                module.weight.copy_(1 + 0.3 * torch.randn(shape))
                module.bias.copy_(0.3 * torch.randn(shape))
    return model


def write_checkpoint(variant: str, path: Path) -> Path:
    """Save such a network as a plain state dict."""
    torch.save(random_parnet(variant).state_dict(), path)
    return path
