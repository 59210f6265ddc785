"""Prove that the fused network is the trained one: every block and the whole, in two precisions.

The network is walked once, block by block, with only one block in float64 at a time, so that the
proof of the largest ParNet fits beside its weights.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ..compare import FLOAT32_TOLERANCE, FLOAT64_TOLERANCE, Parity, compare
from ..errors import CheckFailedError
from ..spec import IMAGE, LOGITS, BlockSpec, ModelSpec, PartSpec
from .fuse import (
    FusedNetwork,
    Tensors,
    bias_map,
    fuse_block,
    keeps_shuffle,
    reads_unshuffled,
    run_block,
    unshuffle,
)
from .model import ParNetBlock, TwoBatchNorms, interleave, shuffle_channels

Values = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Operations:
    """How many operations a block runs, and how many of them are convolutions and BatchNorms."""

    total: int
    convolutions: int
    batch_norms: int


@dataclass(frozen=True, kw_only=True)
class BlockProof:
    """One block, fused against its training form on the activations that reach it."""

    block: str
    kind: str
    float64: Parity
    float32: Parity
    before: Operations
    after: Operations
    stayed: str

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            **asdict(self),
            "float64": self.float64.to_json(),
            "float32": self.float32.to_json(),
        }


@dataclass(frozen=True, kw_only=True)
class FuseProof:
    """All blocks, and the logits of the whole network."""

    blocks: tuple[BlockProof, ...]
    float64: Parity
    float32: Parity

    def require(self) -> FuseProof:
        """Return self, or raise.

        Raises:
            CheckFailedError: A block or the whole differs; the message names the first.
        """
        for proof in self.blocks:
            proof.float64.require()
            proof.float32.require()
        self.float64.require()
        self.float32.require()
        left = [p.block for p in self.blocks if p.after.batch_norms]
        if left:
            raise CheckFailedError(f"fuse: BatchNorm operations remain in {', '.join(left)}.")
        return self

    def totals(self) -> dict[str, dict[str, int]]:
        """Operations of all blocks together, before and after."""
        return {
            when: {
                field: sum(getattr(getattr(proof, when), field) for proof in self.blocks)
                for field in ("total", "convolutions", "batch_norms")
            }
            for when in ("before", "after")
        }

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "blocks": [proof.to_json() for proof in self.blocks],
            "float64": self.float64.to_json(),
            "float32": self.float32.to_json(),
        }


def prove(
    state: Tensors,
    network: FusedNetwork,
    *,
    seed: int = 0,
    on_block: Callable[[str], None] = lambda name: None,
) -> FuseProof:
    """Compare the training form with the fused form on random images, borders included.

    Two images of the smallest legal size and twice its width; no calibration data is needed.

    Args:
        state: Training-form tensors, float32.
        network: The fused float32 weights that will be deployed.
        seed: Of the random images.
        on_block: Called with each block's name when it is done, for progress.
    """
    spec = network.spec
    side = spec.size_multiple
    generator = torch.Generator().manual_seed(seed)
    image = torch.randn(2, spec.in_channels, side, 2 * side, generator=generator)
    train64: Values = {IMAGE: image.double()}
    fused64, train32, fused32 = dict(train64), {IMAGE: image}, {IMAGE: image}
    proofs = []
    with torch.inference_mode():
        for part in spec.parts:
            columns = [_inputs(part, v) for v in (train64, fused64, train32, fused32)]
            for block in part.blocks:
                proof, columns = _walk_block(state, network, block, columns)
                proofs.append(proof)
                on_block(block.name)
            for values, column in zip((train64, fused64, train32, fused32), columns, strict=True):
                values[part.output] = column[0]
        final = [_classify(v[LOGITS], state) for v in (train64, fused64, train32, fused32)]
    a64, b64, a32, b32 = (logits.numpy() for logits in final)
    return FuseProof(
        blocks=tuple(proofs),
        float64=compare(b64, a64, tolerance=FLOAT64_TOLERANCE, what="fused logits, float64"),
        float32=compare(b32, a32, tolerance=FLOAT32_TOLERANCE, what="fused logits, float32"),
    )


def training_block(
    state: Tensors, block: BlockSpec, spec: ModelSpec, dtype: torch.dtype
) -> Callable[[tuple[Tensor, ...]], Tensor]:
    """One block in training form as a function of its inputs; builds nothing but this block."""
    module = _load(ParNetBlock, state, block.name, dtype, block, spec.activation)
    if block.norm is None:
        return lambda inputs: module(inputs[0])
    norms = _load(TwoBatchNorms, state, block.norm, dtype, block.in_channels)
    return lambda inputs: module(interleave(*norms(inputs)))


def _walk_block(
    state: Tensors,
    network: FusedNetwork,
    block: BlockSpec,
    columns: list[tuple[Tensor, ...]],
) -> tuple[BlockProof, list[tuple[Tensor, ...]]]:
    """Advance the four runs by one block and compare the block on the exact activations."""
    spec = network.spec
    exact, fused_exact, single, fused_single = columns
    deployed, folded = network.block(block.name), fuse_block(state, block, spec)
    in32 = training_block(state, block, spec, torch.float32)
    reads, border = _as_fused(single, block, spec), None
    if block.kind == "fusion":
        border = bias_map(deployed, *single[0].shape[2:], stride=block.stride)
    with _Counter() as before:
        train32 = in32(single)
    with _Counter() as after:
        out32 = run_block(block, deployed, reads, spec, border=border)
    train64 = training_block(state, block, spec, torch.float64)(exact)
    out64 = run_block(block, folded, _as_fused(exact, block, spec), spec)
    proof = BlockProof(
        block=block.name,
        kind=block.kind,
        float64=_compare(block, out64, train64, spec, FLOAT64_TOLERANCE),
        float32=_compare(block, out32, train32, spec, FLOAT32_TOLERANCE),
        before=before.result(),
        after=after.result(),
        stayed=_why_stayed(block, spec),
    )
    next64 = run_block(block, folded, fused_exact, spec)
    next32 = run_block(block, deployed, fused_single, spec)
    return proof, [(train64,), (next64,), (train32,), (next32,)]


def _as_fused(inputs: tuple[Tensor, ...], block: BlockSpec, spec: ModelSpec) -> tuple[Tensor, ...]:
    """Training activations in the channel order that the fused block reads."""
    if not reads_unshuffled(block, spec):
        return inputs
    return tuple(x[:, unshuffle(x.shape[1])] for x in inputs)


def _compare(
    block: BlockSpec, got: Tensor, reference: Tensor, spec: ModelSpec, tolerance: float
) -> Parity:
    """A fusion whose shuffle was folded into its reader is compared after that shuffle."""
    if block.kind == "fusion" and not keeps_shuffle(block, spec):
        got = shuffle_channels(got, 2)
    what = f"block {block.name}, {str(got.dtype).removeprefix('torch.')}"
    return compare(got.numpy(), reference.numpy(), tolerance=tolerance, what=what)


def _why_stayed(block: BlockSpec, spec: ModelSpec) -> str:
    if block.kind == "residual":
        return "side path x * scale + shift under the gate: the product depends on the data"
    if keeps_shuffle(block, spec):
        return "gate; channel shuffle, for its reader has two groups"
    return "gate"


def _inputs(part: PartSpec, values: Values) -> tuple[Tensor, ...]:
    return tuple(values[name] for name in part.inputs)


def _classify(features: Tensor, state: Tensors) -> Tensor:
    weight, bias = (state[f"head.fc.{name}"].to(features.dtype) for name in ("weight", "bias"))
    return torch.nn.functional.linear(features.mean((2, 3)), weight, bias)


def _load(kind: Any, state: Tensors, name: str, dtype: torch.dtype, *args: Any) -> Any:
    with torch.device("meta"):
        module = kind(*args)
    prefix = name + "."
    mine = {k.removeprefix(prefix): t.to(dtype) for k, t in state.items() if k.startswith(prefix)}
    module.load_state_dict(mine, assign=True, strict=False)  # without the batch counters
    return module.eval()


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the operations that torch really runs."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing is compiled here; skipping would import torch._dynamo, 2.4 s

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))

    def result(self) -> Operations:
        views = {"view", "unsqueeze", "_unsafe_view", "alias", "detach"}
        real = [name for name in self.names if name not in views]
        return Operations(
            total=len(real),
            convolutions=sum("conv" in name for name in real),
            batch_norms=sum("batch_norm" in name for name in real),
        )
