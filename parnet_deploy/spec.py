"""What a ParNet is, as plain frozen data: blocks, parts, the tensors between them, sizes, costs.

Letters used in every shape comment: N batch, C channels, H and W height and width, K classes,
S streams, O and I output and input channels of a convolution, G groups.

Source: Goyal et al., "Non-deep Networks", NeurIPS 2022, section 3; names as in
imankgoyal/NonDeepNetworks ``imagenet/timm/models/simplenet_impl/simpnet.py`` at 777b286.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from math import prod
from operator import index
from typing import Any, Literal

from .errors import SpecError

Activation = Literal["silu", "relu"]
BlockKind = Literal["down", "residual", "fusion"]

ACTIVATIONS: tuple[Activation, ...] = ("silu", "relu")
BATCH_NORM_EPS = 1e-5
IMAGE = "image"
LOGITS = "logits"
MAX_BLOCKS = 4096  # a limit, so that a hostile description is refused before it is spread


@dataclass(frozen=True, kw_only=True)
class BlockSpec:
    """One RepVGG-SSE block.

    ``name`` is the prefix of its tensors in a released state dict, up to ``.block``.
    kind "residual": identity branch with the gate on it (inside streams).
    kind "down": one input, gate on the summed convolutions.
    kind "fusion": two inputs, each of ``in_channels``, normalised by ``norm`` and interleaved,
    then a two-group "down" block whose output channels are shuffled.
    """

    name: str
    kind: BlockKind
    in_channels: int
    out_channels: int
    stride: int
    norm: str | None = None

    @property
    def groups(self) -> int:
        """Groups of the block's convolutions in training form."""
        return 2 if self.kind == "fusion" else 1

    @property
    def conv_in_channels(self) -> int:
        """Input channels that the block's own convolutions see (a fusion sees both inputs)."""
        return self.in_channels * self.groups

    def macs(self, height: int, width: int) -> int:
        """Multiply-accumulates of the fused convolution for one sample, by its INPUT size."""
        positions = (height // self.stride) * (width // self.stride)
        return positions * self.out_channels * 9 * self.conv_in_channels // self.groups


@dataclass(frozen=True, kw_only=True)
class PartSpec:
    """An atomic piece of the network: what it reads, what it writes, which blocks it holds.

    ``level`` is the base-2 logarithm of how much smaller its output is than the image.
    """

    name: str
    inputs: tuple[str, ...]
    output: str
    blocks: tuple[BlockSpec, ...]


@dataclass(frozen=True, kw_only=True)
class TensorSpec:
    """A named tensor between parts; ``channels`` and ``level`` give its shape for any image."""

    name: str
    channels: int
    level: int | None  # None: no spatial axes (the logits)

    def shape(self, height: int, width: int) -> tuple[int, ...]:
        """Shape of one sample, without the batch axis: (C, H, W), or (K,) for the logits."""
        if self.level is None:
            return (self.channels,)
        return (self.channels, height >> self.level, width >> self.level)

    def nbytes(self, batch: int, height: int, width: int) -> int:
        """Bytes of a batch in float32."""
        return 4 * batch * prod(self.shape(height, width))


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """A ParNet configuration, as read off the shapes of its weights.

    ``planes`` and ``num_blocks`` are written as in the released YAML files: one entry per stream
    and a last one for the classifier's width; stream i holds ``num_blocks[i] - 1`` blocks.
    """

    planes: tuple[int, ...]
    num_blocks: tuple[int, ...]
    num_classes: int
    activation: Activation = "silu"
    in_channels: int = 3

    def __post_init__(self) -> None:
        if self.activation not in ACTIVATIONS:
            raise SpecError(f"activation: got {self.activation!r}, expected silu or relu.")
        if len(self.planes) < 3 or len(self.planes) != len(self.num_blocks):
            raise SpecError(
                f"network: got planes {self.planes} and blocks {self.num_blocks}, "
                "expected the same length and at least two streams."
            )
        total = sum(self.num_blocks)
        if self.num_blocks[-1] != 1 or min(self.num_blocks) < 1 or total > MAX_BLOCKS:
            raise SpecError(
                f"network: got blocks {self.num_blocks}, expected 1 or more, at most {MAX_BLOCKS} "
                "together, and a last entry of 1."
            )
        if min(*self.planes, self.num_classes, self.in_channels) < 1:
            raise SpecError("network: every width and the number of classes must be positive.")
        odd = [p for p in {*self.planes[2:-1], self.planes[-2]} if p % 2]
        if odd:
            raise SpecError(
                f"network: got an odd width {odd[0]}, expected an even one, "
                "for it comes out of a convolution with two groups."
            )

    @property
    def streams(self) -> int:
        """Number of parallel streams, S."""
        return len(self.planes) - 1

    @property
    def size_multiple(self) -> int:
        """Height and width must be multiples of this: every stride-2 block needs an even map."""
        return 1 << (self.streams + 2)

    def check_size(self, height: int, width: int) -> None:
        """Refuse a size for which the training form has no answer.

        Raises:
            SpecError: The fused form would run there and return wrong numbers silently.
        """
        multiple = self.size_multiple
        if height < multiple or width < multiple or height % multiple or width % multiple:
            raise SpecError(
                f"input size: got {height}x{width}, expected multiples of {multiple} "
                f"(a ParNet with {self.streams} streams halves the image "
                f"{self.streams + 2} times). Resize or pad the image."
            )

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types; ``from_json`` reads it back."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ModelSpec:
        """Inverse of ``to_json``.

        Raises:
            SpecError: A key is missing or unknown, or a value has the wrong type.
        """
        try:
            check_keys(data, cls)
            return cls(
                planes=tuple(index(p) for p in data["planes"]),
                num_blocks=tuple(index(n) for n in data["num_blocks"]),
                num_classes=index(data["num_classes"]),
                activation=data["activation"],
                in_channels=index(data["in_channels"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise SpecError(f"network description: cannot read it: {error!r}.") from error

    @property
    def parts(self) -> tuple[PartSpec, ...]:
        """All parts, each after the parts that it reads from."""
        last = self.streams - 1
        stems = [_stem(self, i) for i in range(self.streams)]
        streams = [_stream(self, i) for i in range(self.streams)]
        fusions = [_fusion(self, i) for i in range(last)]
        return (*stems, *streams, *fusions, _head(self))

    @property
    def blocks(self) -> tuple[BlockSpec, ...]:
        """All blocks in the order of ``parts``."""
        return tuple(block for part in self.parts for block in part.blocks)

    @property
    def tensors(self) -> dict[str, TensorSpec]:
        """Every tensor that crosses a part boundary, the image and the logits included."""
        found = {IMAGE: TensorSpec(name=IMAGE, channels=self.in_channels, level=0)}
        for part in self.parts:
            level: int | None = None
            channels = self.num_classes
            if part.output != LOGITS:
                source = found[part.inputs[0]]
                assert source.level is not None  # only the logits have none, and nobody reads them
                level = source.level + sum(block.stride == 2 for block in part.blocks)
                channels = part.blocks[-1].out_channels if part.blocks else source.channels
            found[part.output] = TensorSpec(name=part.output, channels=channels, level=level)
        return found

    def macs(self, height: int, width: int) -> dict[str, int]:
        """Multiply-accumulates of each part for one image of this size, convolutions only."""
        tensors = self.tensors
        result = {}
        for part in self.parts:
            h, w = tensors[part.inputs[0]].shape(height, width)[1:]
            total = 0
            for block in part.blocks:
                total += block.macs(h, w)
                h, w = h // block.stride, w // block.stride
            result[part.name] = total
        return result


def check_keys(data: Mapping[str, Any], kind: type[Any]) -> None:
    """Refuse JSON that has not exactly the fields of a dataclass.

    Raises:
        ValueError: With what differs.
    """
    differ = set(data) ^ {field.name for field in fields(kind)}
    if differ:
        raise ValueError(f"missing or unknown: {sorted(map(str, differ))}")


def _stem(spec: ModelSpec, i: int) -> PartSpec:
    if i == 0:
        middle = min(64, spec.planes[0])
        blocks: tuple[BlockSpec, ...] = (
            _down("inits.0.0", spec.in_channels, middle),
            _down("inits.0.1", middle, spec.planes[0]),
        )
    else:
        blocks = (_down(f"inits.{i}", spec.planes[i - 1], spec.planes[i]),)
    source = IMAGE if i == 0 else f"x{i - 1}"
    return PartSpec(name=f"stem{i}", inputs=(source,), output=f"x{i}", blocks=blocks)


def _stream(spec: ModelSpec, i: int) -> PartSpec:
    c = spec.planes[i]
    blocks = tuple(
        BlockSpec(name=f"streams.{i}.{k}", kind="residual", in_channels=c, out_channels=c, stride=1)
        for k in range(spec.num_blocks[i] - 1)
    )
    return PartSpec(name=f"stream{i}", inputs=(f"x{i}",), output=f"y{i}", blocks=blocks)


def _fusion(spec: ModelSpec, i: int) -> PartSpec:
    if i == 0:
        block = _down("downsamples_2.0", spec.planes[0], spec.planes[1])
        return PartSpec(name="fusion0", inputs=("y0",), output="d0", blocks=(block,))
    block = BlockSpec(
        name=f"downsamples_2.{i}.2",
        kind="fusion",
        in_channels=spec.planes[i],
        out_channels=spec.planes[i + 1],
        stride=2,
        norm=f"downsamples_2.{i}.0",
    )
    inputs = (f"y{i}", f"d{i - 1}")
    return PartSpec(name=f"fusion{i}", inputs=inputs, output=f"d{i}", blocks=(block,))


def _head(spec: ModelSpec) -> PartSpec:
    last = spec.streams - 1
    width = spec.planes[last]
    combine = BlockSpec(
        name="combine.2",
        kind="fusion",
        in_channels=width,
        out_channels=width,
        stride=1,
        norm="combine.0",
    )
    blocks = (combine, _down("combine.3", width, spec.planes[-1]))
    return PartSpec(name="head", inputs=(f"y{last}", f"d{last - 1}"), output=LOGITS, blocks=blocks)


def _down(name: str, in_channels: int, out_channels: int) -> BlockSpec:
    return BlockSpec(
        name=name, kind="down", in_channels=in_channels, out_channels=out_channels, stride=2
    )


def _released(p0: int, p1: int, p2: int, last: int) -> ModelSpec:
    return ModelSpec(planes=(p0, p1, p2, last), num_blocks=(5, 6, 6, 1), num_classes=1000)


RELEASED: dict[str, ModelSpec] = {
    "parnet-s": _released(92, 192, 384, 1280),
    "parnet-m": _released(128, 256, 512, 2048),
    "parnet-l": _released(160, 320, 640, 2560),
    "parnet-xl": _released(200, 400, 800, 3200),
}
"""The four networks of the paper, by name (planes and blocks of the released YAML files)."""
