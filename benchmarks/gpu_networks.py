"""The fused network as a torch module, without a look-up in a call: the fair rival of engines."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 (the field's standard name)
from torch import Tensor, nn

from parnet_deploy.export.fuse import (
    SHUFFLE_GROUPS,
    FusedNetwork,
    activate,
    bias_map,
    keeps_shuffle,
)
from parnet_deploy.export.model import shuffle_channels
from parnet_deploy.spec import IMAGE, LOGITS, BlockSpec, ModelSpec


class FusedBlock(nn.Module):
    """What ``export.fuse.run_block`` computes; constants are made once, for one image size.

    Shapes: one or two of (N, C, H, W) -> (N, O, H/stride, W/stride).
    """

    def __init__(self, block: BlockSpec, network: FusedNetwork, height: int, width: int) -> None:
        super().__init__()
        self.kind, self.stride = block.kind, block.stride
        self.activation = network.spec.activation
        self.shuffled = keeps_shuffle(block, network.spec)
        fields = network.block(block.name)
        if block.kind == "fusion":
            self.groups = block.in_channels // fields["conv_a.weight"].shape[1]
            border = bias_map(fields, height, width, stride=block.stride)
            fields = {**fields, "border.weight": border}
        for name, tensor in fields.items():
            vector = name.startswith("side.") or (block.kind == "fusion" and name == "gate.bias")
            self.register_buffer(
                name.replace(".", "_"), tensor.view(1, -1, 1, 1) if vector else tensor
            )

    def forward(self, *inputs: Tensor) -> Tensor:
        """The block."""
        pooled = [x.mean((2, 3), keepdim=True) for x in inputs]
        x = inputs[0]
        if self.kind == "residual":
            gate = F.conv2d(pooled[0], self.gate_weight, self.gate_bias).sigmoid()
            side = (x * self.side_scale + self.side_shift) * gate
            out = F.conv2d(x, self.conv_weight, self.conv_bias, padding=1) + side
        elif self.kind == "down":
            gate = F.conv2d(pooled[0], self.gate_weight).sigmoid()
            out = F.conv2d(x, self.conv_weight, self.conv_bias, self.stride, padding=1) * gate
        else:
            out, logit = self.border_weight, self.gate_bias
            for side_name, value, pool in zip("ab", inputs, pooled, strict=True):
                weight = getattr(self, f"conv_{side_name}_weight")
                gate = getattr(self, f"gate_{side_name}_weight")
                out = out + F.conv2d(value, weight, None, self.stride, 1, 1, self.groups)
                logit = logit + F.conv2d(pool, gate, groups=self.groups)
            out = out * logit.sigmoid()
        out = activate(out, self.activation)
        return shuffle_channels(out, SHUFFLE_GROUPS) if self.shuffled else out


class FusedParNet(nn.Module):
    """The whole fused network for one image size.

    Shapes: image (N, C, H, W) -> logits (N, K).
    """

    def __init__(self, network: FusedNetwork, side: int) -> None:
        super().__init__()
        spec: ModelSpec = network.spec
        self.blocks = nn.ModuleList()
        self.steps: list[tuple[int, tuple[str, ...], str]] = []  # block, reads, writes
        tensors = spec.tensors
        for part in spec.parts:
            height, width = tensors[part.inputs[0]].shape(side, side)[1:]
            reads = part.inputs
            if not part.blocks:
                raise ValueError(f"part {part.name} has no block")
            for index, block in enumerate(part.blocks):
                writes = part.output if block == part.blocks[-1] else f"{part.name}.{index}"
                self.steps.append((len(self.blocks), reads, writes))
                self.blocks.append(FusedBlock(block, network, height, width))
                reads = (writes,)
                height, width = height // block.stride, width // block.stride
        self.register_buffer("fc_weight", network.tensors["head.fc.weight"])
        self.register_buffer("fc_bias", network.tensors["head.fc.bias"])
        self.eval()

    def forward(self, image: Tensor) -> Tensor:
        """Logits of images."""
        values = {IMAGE: image}
        for index, reads, writes in self.steps:
            values[writes] = self.blocks[index](*(values[name] for name in reads))
        return F.linear(values[LOGITS].mean((2, 3)), self.fc_weight, self.fc_bias)

    @property
    def weights(self) -> int:
        """Numbers that a run reads besides the image."""
        return sum(buffer.numel() for buffer in self.buffers())


def check_fused(module: FusedParNet, model: nn.Module, image: Tensor) -> float:
    """Error of this module against the training form in float64, of the largest logit."""
    with torch.inference_mode():
        want = model.double()(image.double())
        got = module.double()(image.double())
    return float((got - want).abs().max() / want.abs().max())
