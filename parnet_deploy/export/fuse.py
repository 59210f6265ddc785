"""Reparameterization: fold every BatchNorm and branch of a block into 3x3 convolutions, exactly.

Pure functions from training-form tensors to fused tensors, in float64. What a fused block computes
(act is SiLU or ReLU, p(x) the global average pool):

    residual   act(conv(x) + (x * side.scale + side.shift) * sigmoid(gate p(x) + gate.bias))
    down       act(conv(x) * sigmoid(gate p(x)))                 the gate's factor 2 is in conv
    fusion     act((conv_a(a) + conv_b(b) + map) * sigmoid(gate_a p(a) + gate_b p(b) + gate.bias)),
               map = the convolution of ones with border.weight; then a channel shuffle, unless
               the next block could take it in

No BatchNorm is left. The gate depends on the data, so the side path of a residual block stays.
A fusion's BatchNorm comes before a ZERO-padded convolution: its scale folds into the kernel, its
shift does not fold into a constant bias (the border would be wrong by O(0.1)) but into a map that
depends on nothing but the image size. The interleaving concat is gone: each input has its own
kernel, the even or the odd input channels of the original one.

Source: Ding et al., "RepVGG", CVPR 2021, section 3.3; the folds beyond it are this project's and
are proved for every block on every run (``prove.py``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 (the field's standard name)
from torch import Tensor

from ..spec import BATCH_NORM_EPS, IMAGE, LOGITS, Activation, BlockSpec, ModelSpec
from .model import shuffle_channels

Tensors = Mapping[str, Tensor]
SHUFFLE_GROUPS = 2


@dataclass(frozen=True, kw_only=True)
class FusedNetwork:
    """Fused weights of a whole network: ``tensors["<block>.<field>"]`` and the classifier's.

    Owns its tensors; no storage is shared with the training form.
    """

    spec: ModelSpec
    tensors: Tensors

    def block(self, name: str) -> dict[str, Tensor]:
        """The fields of one block without the block's name (no copy)."""
        prefix = name + "."
        return {k.removeprefix(prefix): t for k, t in self.tensors.items() if k.startswith(prefix)}


def fuse_network(
    state: Tensors, spec: ModelSpec, dtype: torch.dtype = torch.float32
) -> FusedNetwork:
    """Fuse all blocks in float64 and round once to ``dtype``. ``state`` is left untouched."""
    fused: dict[str, Tensor] = {}
    for block in spec.blocks:
        for field, tensor in fuse_block(state, block, spec).items():
            fused[f"{block.name}.{field}"] = _own(tensor, dtype)
    for name in ("head.fc.weight", "head.fc.bias"):
        fused[name] = _own(state[name], dtype)
    return FusedNetwork(spec=spec, tensors=fused)


def fuse_block(state: Tensors, block: BlockSpec, spec: ModelSpec) -> dict[str, Tensor]:
    """Fuse one block in float64.

    Args:
        state: Training-form tensors of the whole network under their released names.
        block: Which block.
        spec: The network, for what its neighbours fold into this block.
    """
    weight, bias = _dense_and_pointwise(state, block)
    gate = _double(state, f"{block.name}.block.se.cvsig.conv.weight")
    if block.kind == "residual":
        return _fuse_residual(state, block, weight, bias, gate)
    weight *= 2  # the 2 of 2 * sigmoid(gate); both are this function's own
    bias *= 2
    if block.kind == "fusion":
        return _fuse_fusion(state, block, weight, bias, gate)
    if reads_unshuffled(block, spec):
        order = unshuffle(block.in_channels)
        weight, gate = weight[:, order], gate[:, order]
    return {"conv.weight": weight, "conv.bias": bias, "gate.weight": gate}


def keeps_shuffle(block: BlockSpec, spec: ModelSpec) -> bool:
    """Whether a fusion block still has to shuffle its output channels.

    The head's folds into the dense convolution after it. The others feed another two-group
    convolution, each half of which needs channels of both halves: that does not fold.
    """
    return block.kind == "fusion" and block != _combine(spec)


def reads_unshuffled(block: BlockSpec, spec: ModelSpec) -> bool:
    """Whether the channel shuffle of the fusion before this block is folded into its weights."""
    return block == spec.parts[-1].blocks[1]


def unshuffle(channels: int) -> Tensor:
    """Column order that lets a kernel made for shuffled channels read unshuffled ones."""
    shuffled = shuffle_channels(torch.arange(channels).view(1, -1, 1, 1), SHUFFLE_GROUPS)
    return shuffled.flatten().argsort()


def affine(state: Tensors, prefix: str) -> tuple[Tensor, Tensor]:
    """BatchNorm in evaluation mode as x * scale + shift, each (C,)."""
    deviation = (_double(state, f"{prefix}.running_var") + BATCH_NORM_EPS).sqrt()
    scale = _double(state, f"{prefix}.weight") / deviation
    shift = _double(state, f"{prefix}.bias") - _double(state, f"{prefix}.running_mean") * scale
    return scale, shift


def run_block(
    block: BlockSpec,
    tensors: Tensors,
    inputs: tuple[Tensor, ...],
    spec: ModelSpec,
    *,
    border: Tensor | None = None,
) -> Tensor:
    """What a fused block computes, in the dtype of its tensors: the reference for every backend.

    Args:
        block: Which block.
        tensors: Its fused fields.
        inputs: One or two of (N, C, H, W); the result is (N, O, H/stride, W/stride).
        spec: The network.
        border: ``bias_map`` of a fusion block for this size, where the caller has it.
    """
    pooled = [x.mean((2, 3), keepdim=True) for x in inputs]
    x = inputs[0]
    if block.kind == "residual":
        gate = F.conv2d(pooled[0], tensors["gate.weight"], tensors["gate.bias"]).sigmoid()
        side = x * _channels(tensors["side.scale"]) + _channels(tensors["side.shift"])
        out = F.conv2d(x, tensors["conv.weight"], tensors["conv.bias"], padding=1) + side * gate
        return activate(out, spec.activation)
    if block.kind == "down":
        gate = F.conv2d(pooled[0], tensors["gate.weight"]).sigmoid()
        out = F.conv2d(x, tensors["conv.weight"], tensors["conv.bias"], stride=2, padding=1)
        return activate(out * gate, spec.activation)
    out = bias_map(tensors, *x.shape[2:], stride=block.stride) if border is None else border
    logit = _channels(tensors["gate.bias"])
    for side_name, value, pool in zip("ab", inputs, pooled, strict=True):
        weight = tensors[f"conv_{side_name}.weight"]
        groups = block.in_channels // weight.shape[1]
        out = out + F.conv2d(value, weight, stride=block.stride, padding=1, groups=groups)
        logit = logit + F.conv2d(pool, tensors[f"gate_{side_name}.weight"], groups=groups)
    out = activate(out * logit.sigmoid(), spec.activation)
    return shuffle_channels(out, SHUFFLE_GROUPS) if keeps_shuffle(block, spec) else out


def run_network(network: FusedNetwork, image: Tensor) -> dict[str, Tensor]:
    """The fused network in torch: the image, every tensor between parts, and the logits.

    Shapes: image (N, C, H, W); the others as ``spec.tensors`` says, with the batch in front.
    """
    values = {IMAGE: image}
    for part in network.spec.parts:
        inputs = tuple(values[name] for name in part.inputs)
        for block in part.blocks:
            inputs = (run_block(block, network.block(block.name), inputs, network.spec),)
        values[part.output] = inputs[0]
    pooled = values[LOGITS].mean((2, 3))
    weight, bias = network.tensors["head.fc.weight"], network.tensors["head.fc.bias"]
    values[LOGITS] = F.linear(pooled, weight, bias)
    return values


def bias_map(tensors: Tensors, height: int, width: int, *, stride: int) -> Tensor:
    """A fusion block's bias and what its folded shifts add at the border, by its INPUT size.

    Shapes: -> (1, O, H/stride, W/stride).
    """
    ones = tensors["border.weight"].new_ones(1, 1, height, width)
    bias = tensors["conv.bias"]
    return F.conv2d(ones, tensors["border.weight"], bias, stride=stride, padding=1)


def activate(x: Tensor, activation: Activation) -> Tensor:
    """SiLU or ReLU."""
    return F.silu(x) if activation == "silu" else F.relu(x)


def _dense_and_pointwise(state: Tensors, block: BlockSpec) -> tuple[Tensor, Tensor]:
    """Merge the 3x3 and 1x1 branches with their BatchNorms: weight (O, I/G, 3, 3), bias (O)."""
    prefix = f"{block.name}.block"
    weight, bias = _fold_conv_bn(state, f"{prefix}.rbr_dense")
    if block.stride == 1:
        point, point_bias = _fold_conv_bn(state, f"{prefix}.rbr_1x1")
        weight[:, :, 1:2, 1:2] += point
    else:  # AvgPool2d(2, 2) before the 1x1: a quarter of it on each of the four last taps
        point, point_bias = _fold_conv_bn(state, f"{prefix}.rbr_1x1.1")
        weight[:, :, 1:, 1:] += point / 4
    return weight, bias + point_bias


def _fuse_residual(
    state: Tensors, block: BlockSpec, weight: Tensor, bias: Tensor, gate: Tensor
) -> dict[str, Tensor]:
    """The pool commutes with the identity BatchNorm: gate(scale p(x) + shift) is affine in p(x)."""
    scale, shift = affine(state, f"{block.name}.block.rbr_identity")
    return {
        "conv.weight": weight,
        "conv.bias": bias,
        "side.scale": scale,
        "side.shift": shift,
        "gate.weight": gate * scale.view(1, -1, 1, 1),
        "gate.bias": gate.flatten(1) @ shift,
    }


def _fuse_fusion(
    state: Tensors, block: BlockSpec, weight: Tensor, bias: Tensor, gate: Tensor
) -> dict[str, Tensor]:
    """Split the two-group kernel by its input and fold the input's BatchNorm into it.

    What the shifts add behind zero padding is a map, not a constant. It is the convolution of an
    all-ones image of one channel with ``border.weight`` (O, 1, 3, 3), for any image size.
    """
    fused = {"conv.bias": bias, "gate.bias": torch.zeros_like(bias)}
    border = torch.zeros_like(weight[:, :1])
    for index, side in enumerate("ab"):
        scale, shift = affine(state, f"{block.norm}.b{index + 1}")
        kernel, kernel_scale, kernel_shift = _one_input(weight, index, scale, shift)
        fused[f"conv_{side}.weight"] = kernel * kernel_scale
        border += (kernel * kernel_shift).sum(1, keepdim=True)
        kernel, kernel_scale, kernel_shift = _one_input(gate, index, scale, shift)
        fused[f"gate_{side}.weight"] = kernel * kernel_scale
        fused["gate.bias"] += (kernel * kernel_shift).sum((1, 2, 3))
    return {**fused, "border.weight": border}


def _one_input(
    weight: Tensor, index: int, scale: Tensor, shift: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The part of a two-group kernel that reads input ``index`` of an interleaving concat.

    Shapes: weight (O, C, k, k) over two groups of C of the 2C interleaved channels; the kernel
    comes back as (O, C/2, k, k) for two groups, or for an odd C as (O, C, k, k) for one group with
    zeros, beside scale and shift per output and input channel, (O, C/2 or C, 1, 1).
    """
    outputs, channels = weight.shape[:2]
    dense = weight.new_zeros(outputs, 2 * channels, *weight.shape[2:])
    half = outputs // 2
    dense[:half, :channels], dense[half:, channels:] = weight[:half], weight[half:]
    dense = dense[:, index::2]  # (O, C, k, k): input c is channel 2c + index of the concat
    scales, shifts = (v.view(1, -1, 1, 1).expand(outputs, -1, 1, 1) for v in (scale, shift))
    if channels % 2:
        return dense, scales, shifts
    return _halves(dense), _halves(scales), _halves(shifts)


def _halves(dense: Tensor) -> Tensor:
    """Keep of (O, C, ...) what two groups need: (O, C/2, ...)."""
    outputs, channels = dense.shape[0] // 2, dense.shape[1] // 2
    return torch.cat((dense[:outputs, :channels], dense[outputs:, channels:]))


def _combine(spec: ModelSpec) -> BlockSpec:
    return spec.parts[-1].blocks[0]


def _fold_conv_bn(state: Tensors, prefix: str) -> tuple[Tensor, Tensor]:
    scale, shift = affine(state, f"{prefix}.bn")
    weight = state[f"{prefix}.conv.weight"]
    return weight * scale.view(-1, 1, 1, 1), shift  # float64, for scale is


def _own(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor.to(dtype, copy=True, memory_format=torch.contiguous_format)


def _double(state: Tensors, name: str) -> Tensor:
    return state[name].to(torch.float64)


def _channels(vector: Tensor) -> Tensor:
    return vector.view(1, -1, 1, 1)
