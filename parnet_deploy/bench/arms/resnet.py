"""What ResNets are made of, layer by layer: the networks that ParNet is compared with.

Source: He et al. 2015 (arXiv 1512.03385), table 1, with the stride of a bottleneck in its 3x3
convolution, as torchvision has it ("v1.5").
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ...errors import SpecError

_WIDTHS = (64, 128, 256, 512)
_STEM = 64


@dataclass(frozen=True, kw_only=True)
class Conv:
    """One convolution with its bias; ``last`` of its block or not."""

    name: str
    inputs: int
    outputs: int
    kernel: int
    stride: int
    last: bool = False

    @property
    def weights(self) -> int:
        """Without the bias."""
        return self.outputs * self.inputs * self.kernel**2

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) after it; padding is half the kernel."""
        return -(-height // self.stride), -(-width // self.stride)


@dataclass(frozen=True, kw_only=True)
class Block:
    """Convolutions one after the other, and the projection beside them where shapes change."""

    main: tuple[Conv, ...]
    projection: Conv | None


@dataclass(frozen=True, kw_only=True)
class ResNet:
    """A network of the family: blocks of each stage, of two 3x3 or of a bottleneck's three."""

    blocks: tuple[int, ...]
    bottleneck: bool
    classes: int = 1000
    in_channels: int = 3

    @property
    def stem(self) -> Conv:
        """The 7x7 convolution; a pooling of stride 2 follows."""
        return Conv(name="stem", inputs=self.in_channels, outputs=_STEM, kernel=7, stride=2)

    @property
    def features(self) -> int:
        """Channels before the classifier."""
        return _WIDTHS[-1] * (4 if self.bottleneck else 1)

    def residual_blocks(self) -> Iterator[Block]:
        """In the order in which they run."""
        inputs = _STEM
        for stage, (width, count) in enumerate(zip(_WIDTHS, self.blocks, strict=True)):
            outputs = width * (4 if self.bottleneck else 1)
            for index in range(count):
                stride = 2 if stage > 0 and index == 0 else 1
                name = f"stage{stage}.{index}"
                yield self._block(name, inputs, width, outputs, stride)
                inputs = outputs

    def parameters(self) -> int:
        """In training form: a weight and a bias of BatchNorm for each channel, no other biases."""
        normalised = sum(conv.weights + 2 * conv.outputs for conv in self._convs())
        return normalised + (self.features + 1) * self.classes

    def macs(self, height: int, width: int) -> int:
        """Multiply-accumulates of convolutions and classifier for one image."""
        size = self.stem.output_size(height, width)
        total = self.stem.weights * size[0] * size[1]
        size = _halved(size)
        for block in self.residual_blocks():
            before = size
            for conv in block.main:
                size = conv.output_size(*size)
                total += conv.weights * size[0] * size[1]
            if block.projection is not None:
                size = block.projection.output_size(*before)
                total += block.projection.weights * size[0] * size[1]
        return total + self.features * self.classes

    def _convs(self) -> Iterator[Conv]:
        yield self.stem
        for block in self.residual_blocks():
            yield from block.main
            if block.projection is not None:
                yield block.projection

    def _block(self, name: str, inputs: int, width: int, outputs: int, stride: int) -> Block:
        shapes = (
            [(inputs, width, 1, 1), (width, width, 3, stride), (width, outputs, 1, 1)]
            if self.bottleneck
            else [(inputs, width, 3, stride), (width, width, 3, 1)]
        )
        main = tuple(
            Conv(
                name=f"{name}.conv{i}",
                inputs=first,
                outputs=second,
                kernel=kernel,
                stride=step,
                last=i == len(shapes) - 1,
            )
            for i, (first, second, kernel, step) in enumerate(shapes)
        )
        same = inputs == outputs and stride == 1
        beside = Conv(
            name=f"{name}.projection", inputs=inputs, outputs=outputs, kernel=1, stride=stride
        )
        return Block(main=main, projection=None if same else beside)


RESNETS: dict[str, tuple[tuple[int, ...], bool]] = {
    "resnet18": ((2, 2, 2, 2), False),
    "resnet34": ((3, 4, 6, 3), False),
    "resnet50": ((3, 4, 6, 3), True),
    "resnet101": ((3, 4, 23, 3), True),
}
"""Blocks of each stage, and whether they are bottlenecks."""


def resnet(name: str, *, classes: int = 1000, in_channels: int = 3) -> ResNet:
    """A network by name.

    Raises:
        SpecError: There is no such network.
    """
    if name not in RESNETS:
        raise SpecError(f"resnet: got {name!r}, expected one of {', '.join(RESNETS)}.")
    blocks, bottleneck = RESNETS[name]
    return ResNet(blocks=blocks, bottleneck=bottleneck, classes=classes, in_channels=in_channels)


def _halved(size: tuple[int, int]) -> tuple[int, int]:
    return -(-size[0] // 2), -(-size[1] // 2)
