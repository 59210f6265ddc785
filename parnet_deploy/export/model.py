"""The training form of ParNet as a torch module, with the released state-dict names.

Only for inference: dropout before the classifier is left out, and the module is always built in
evaluation mode.

Source: imankgoyal/NonDeepNetworks ``imagenet/timm/models/simplenet_impl/{simpnet,repvgg,utils}.py``
at 777b286; "Non-deep Networks" section 3.1.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

from ..spec import BATCH_NORM_EPS, Activation, BlockSpec, ModelSpec


def interleave(a: Tensor, b: Tensor) -> Tensor:
    """Concatenate channel by channel: a0 b0 a1 b1 ... (N, C, H, W) twice -> (N, 2C, H, W)."""
    return torch.stack((a, b), dim=2).flatten(1, 2)


def shuffle_channels(x: Tensor, groups: int) -> Tensor:
    """Channel shuffle: view (N, G, C/G, H, W), swap G and C/G, flatten back to (N, C, H, W)."""
    batch, channels, height, width = x.shape
    grouped = x.view(batch, groups, channels // groups, height, width)
    return grouped.transpose(1, 2).reshape(x.shape)


class RepVggSseBlock(nn.Module):
    """RepVGG-SSE block: 3x3, 1x1 and (stride 1, same width) identity branches with a channel gate.

    Shapes: x (N, groups * C, H, W) -> (N, O, H/stride, W/stride).
    """

    def __init__(self, spec: BlockSpec, activation: Activation) -> None:
        super().__init__()
        inputs, outputs, groups = spec.conv_in_channels, spec.out_channels, spec.groups
        self.groups = groups
        self.rbr_identity = _batch_norm(inputs) if spec.kind == "residual" else None
        self.rbr_dense = _conv_bn(inputs, outputs, 3, spec.stride, groups)
        pointwise = _conv_bn(inputs, outputs, 1, 1, groups)
        self.rbr_1x1 = (
            nn.Sequential(nn.AvgPool2d(2, 2), pointwise) if spec.stride == 2 else pointwise
        )
        self.se = nn.Module()
        self.se.cvsig = nn.Module()
        self.se.cvsig.conv = nn.Conv2d(inputs, outputs, 1, groups=groups, bias=False)
        self.activation: nn.Module = nn.SiLU() if activation == "silu" else nn.ReLU()

    def gate(self, x: Tensor) -> Tensor:
        """Squeeze-and-excitation weights of x. Shapes: (N, C, H, W) -> (N, O, 1, 1)."""
        pooled = x.mean((2, 3), keepdim=True)
        weights: Tensor = self.se.cvsig.conv(pooled).sigmoid()  # type: ignore[union-attr, operator]
        return weights

    def forward(self, x: Tensor) -> Tensor:
        """Branches, gate, activation, shuffle."""
        out = self.rbr_dense(x) + self.rbr_1x1(x)
        if self.rbr_identity is not None:
            identity = self.rbr_identity(x)
            out = out + identity * self.gate(identity)
        else:
            out = out * (2 * self.gate(x))
        out = self.activation(out)
        return shuffle_channels(out, self.groups) if self.groups > 1 else out


class TwoBatchNorms(nn.Module):
    """One BatchNorm for each of the two inputs of a fusion (released name: MultiBatchNorm2d)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.b1 = _batch_norm(channels)
        self.b2 = _batch_norm(channels)

    def forward(self, pair: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Normalise each input."""
        return self.b1(pair[0]), self.b2(pair[1])


class ParNetBlock(nn.Module):
    """Holds the block under the name that the released weights give it."""

    def __init__(self, spec: BlockSpec, activation: Activation) -> None:
        super().__init__()
        self.block = RepVggSseBlock(spec, activation)

    def forward(self, x: Tensor) -> Tensor:
        """The block."""
        out: Tensor = self.block(x)
        return out


class _Interleave(nn.Module):
    """Interleaving concat as a module, so that the released names keep their index."""

    def forward(self, pair: tuple[Tensor, Tensor]) -> Tensor:
        return interleave(*pair)


class _Head(nn.Module):
    """Global average pool and classifier. Shapes: (N, C, H, W) -> (N, K)."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.fc = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc(x.mean((2, 3)))
        return out


class ParNet(nn.Module):
    """The whole network in training form.

    Shapes: image (N, C, H, W), H and W multiples of ``spec.size_multiple`` -> logits (N, K).
    """

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.spec = spec
        made = {b.name: ParNetBlock(b, spec.activation) for b in spec.blocks}
        last = spec.streams - 1
        self.inits = nn.ModuleList(
            [nn.Sequential(made["inits.0.0"], made["inits.0.1"])]
            + [made[f"inits.{i}"] for i in range(1, spec.streams)]
        )
        self.streams = nn.ModuleList(
            nn.Sequential(*(made[f"streams.{i}.{k}"] for k in range(spec.num_blocks[i] - 1)))
            for i in range(spec.streams)
        )
        self.downsamples_2 = nn.ModuleList([made["downsamples_2.0"]])
        for i in range(1, last):
            block = made[f"downsamples_2.{i}.2"]
            self.downsamples_2.append(
                nn.Sequential(TwoBatchNorms(spec.planes[i]), _Interleave(), block)
            )
        self.combine = nn.Sequential(
            TwoBatchNorms(spec.planes[last]), _Interleave(), made["combine.2"], made["combine.3"]
        )
        self.head = _Head(spec.planes[-1], spec.num_classes)
        self.eval()

    def forward(self, image: Tensor) -> Tensor:
        """Logits of images."""
        x = image
        previous: Tensor | None = None
        for i, (init, stream) in enumerate(zip(self.inits, self.streams, strict=True)):
            x = init(x)  # (N, p_i, H / 2^(i+2), W / 2^(i+2))
            y = stream(x)
            if i == self.spec.streams - 1:
                break
            fuse = self.downsamples_2[i]
            previous = fuse(y) if previous is None else fuse((y, previous))
        logits: Tensor = self.head(self.combine((y, previous)))
        return logits


def _batch_norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=BATCH_NORM_EPS)


def _conv_bn(inputs: int, outputs: int, kernel: int, stride: int, groups: int) -> nn.Sequential:
    conv = nn.Conv2d(
        inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=False
    )
    return nn.Sequential(OrderedDict(conv=conv, bn=_batch_norm(outputs)))
