"""Trained ParNet weights from a file: which of them, of what network, and every tensor checked.

``checkpoint_file`` does the reading; nothing from the file is ever executed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from ..errors import AlreadyFusedError, CheckpointError, SpecError
from ..spec import Activation, ModelSpec
from .activation import ActivationChoice, choose_activation
from .checkpoint_file import hash_checkpoint, list_some, read_file, read_training_args
from .model import ParNet

WeightChoice = Literal["auto", "model", "ema"]
MAX_PARAMETERS = 2_000_000_000
MAX_BLOCKS = 1_000


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """Trained weights in training form, with the evidence of how they were read.

    ``tensors`` holds float32 tensors under the released names without ``module.``;
    ``training_args`` what the file says about its training (may be empty); ``notes`` what the
    user should know, one line each.
    """

    path: Path
    sha256: str
    layout: Literal["release", "state-dict", "safetensors"]
    weights: Literal["model", "ema"]
    spec: ModelSpec
    tensors: Mapping[str, Tensor]
    activation: ActivationChoice
    training_args: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def load_checkpoint(
    path: Path, *, weights: WeightChoice = "auto", activation: Activation | None = None
) -> Checkpoint:
    """Load a checkpoint, choose its weights and check every tensor.

    Args:
        path: A ``.pth.tar``, ``.pth``, ``.pt`` or ``.safetensors`` file; the content decides.
        weights: "ema" for the averaged weights, "model" for the others, "auto" for EMA if present.
        activation: Overrides what the weights tell; recorded.

    Raises:
        UnsafeCheckpointError: Loading would need code from the file; nothing was executed.
        AlreadyFusedError: The weights are not in training form.
        CheckpointError: Unreadable, or tensors missing, unexpected, wrongly shaped or not finite.
    """
    sha256 = hash_checkpoint(path)
    content, layout = read_file(path)
    tensors, chosen, notes = _choose(content, layout, weights, path)
    tensors = _strip_prefixes(tensors)
    _refuse_fused(tensors, path)
    shapes = {name: tuple(t.shape) for name, t in tensors.items()}
    spec = read_spec(shapes, path)
    tensors = _check_tensors(tensors, spec, path, notes)
    choice = choose_activation(tensors, spec, activation, path)
    notes += [choice.warning] if choice.warning else []
    return Checkpoint(
        path=path,
        sha256=sha256,
        layout=layout,
        weights=chosen,
        spec=ModelSpec(**{**vars(spec), "activation": choice.activation}),
        tensors=tensors,
        activation=choice,
        training_args=read_training_args(content),
        notes=tuple(notes),
    )


def read_spec(shapes: Mapping[str, tuple[int, ...]], path: Path) -> ModelSpec:
    """Read the configuration off the tensor shapes: streams, depths, widths and classes.

    The activation is not in the shapes; the result says "silu".

    Raises:
        CheckpointError: A tensor that names the configuration is missing, or none can have it.
    """
    stems = _count(shapes, r"inits\.(\d+)\.")
    if not stems:
        raise CheckpointError(
            f"checkpoint {path}: not a ParNet: no tensor inits.0.* among {len(shapes)}; "
            f"found {list_some(shapes)}. Expected the state dict of the authors' SimpNet."
        )

    def out_channels(block: str) -> int:
        return _dimension(shapes, f"{block}.block.rbr_dense.conv.weight", 0, path)

    planes = [out_channels("inits.0.1" if i == 0 else f"inits.{i}") for i in range(stems)]
    blocks = [_count(shapes, rf"streams\.{i}\.(\d+)\.") + 1 for i in range(stems)]
    try:
        return ModelSpec(
            planes=(*planes, out_channels("combine.3")),
            num_blocks=(*blocks, 1),
            num_classes=_dimension(shapes, "head.fc.weight", 0, path),
            in_channels=_dimension(shapes, "inits.0.0.block.rbr_dense.conv.weight", 1, path),
        )
    except SpecError as error:
        raise CheckpointError(f"checkpoint {path}: {error}") from error


def _choose(
    content: Mapping[str, Any], layout: str, weights: WeightChoice, path: Path
) -> tuple[dict[str, Tensor], Literal["model", "ema"], list[str]]:
    """Pick the state dict that was asked for."""
    if layout != "release":
        if weights == "ema":
            raise CheckpointError(
                f"checkpoint {path}: --weights ema: a {layout} file holds one set of weights. "
                "Use --weights auto."
            )
        return _only_tensors(content, path), "model", []
    keys = {"model": "state_dict", "ema": "state_dict_ema"}
    present: list[Literal["model", "ema"]] = [
        name for name in ("ema", "model") if not _is_empty(content.get(keys[name]))
    ]
    chosen = (present or ["model"])[0] if weights == "auto" else weights
    if chosen not in present:
        raise CheckpointError(
            f"checkpoint {path}: --weights {weights}: got none of these, expected one of "
            f"{present or 'model, ema'}."
        )
    notes = []
    if weights == "auto" and len(present) > 1:
        notes.append("Took the EMA weights; the plain ones are there too (--weights model).")
    state = content[keys[chosen]]
    if not isinstance(state, Mapping):
        raise CheckpointError(
            f"checkpoint {path}: {keys[chosen]} is a {type(state).__name__}, expected a dict."
        )
    return _only_tensors(state, path), chosen, notes


def _is_empty(state: object) -> bool:
    return state is None or (isinstance(state, Mapping) and not state)


def _only_tensors(state: Mapping[Any, Any], path: Path) -> dict[str, Tensor]:
    wrong = [
        str(name)
        for name, value in state.items()
        if not (isinstance(name, str) and isinstance(value, Tensor)) or value.is_nested
    ]
    if wrong or not state:
        raise CheckpointError(
            f"checkpoint {path}: not a state dict: {list_some(wrong) if wrong else 'empty'}: "
            "expected tensors by name. Save model.state_dict()."
        )
    return dict(state)


def _strip_prefixes(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Drop what DataParallel and torch.compile put before every name."""
    for prefix in ("module.", "_orig_mod.") * 2:
        if any(name.startswith(prefix) for name in tensors):
            stripped = {name.removeprefix(prefix): t for name, t in tensors.items()}
            tensors = stripped if len(stripped) == len(tensors) else tensors
    return tensors


def _refuse_fused(tensors: Mapping[str, Tensor], path: Path) -> None:
    marks = (".rbr_dense.weight", ".rbr_reparam.weight", ".gate.weight", ".conv_a.weight")
    found = [name for name in tensors if name.endswith(marks)]
    if found:
        raise AlreadyFusedError(
            f"checkpoint {path}: fused already: got {list_some(found)}, expected the training form "
            "(rbr_dense.conv and rbr_dense.bn). Give the checkpoint that training wrote."
        )


def _check_tensors(
    tensors: dict[str, Tensor], spec: ModelSpec, path: Path, notes: list[str]
) -> dict[str, Tensor]:
    """Compare names and shapes with those of the network, refuse what is not finite."""
    _check_extent(spec, path)
    with torch.device("meta"):
        wanted = {n: t.shape for n, t in ParNet(spec).state_dict().items()}
    optional = {name for name in wanted if name.endswith("num_batches_tracked")}
    missing = [name for name in wanted if name not in tensors and name not in optional]
    unexpected = [name for name in tensors if name not in wanted]
    wrong = [
        f"{name} {tuple(t.shape)} instead of {tuple(wanted[name])}"
        for name, t in tensors.items()
        if name in wanted and name not in optional and t.shape != wanted[name]
    ]
    for what, names in (("missing", missing), ("unexpected", unexpected), ("wrong shape", wrong)):
        if names:
            raise CheckpointError(
                f"checkpoint {path}: {what}: {list_some(names)}, for planes {spec.planes}, blocks "
                f"{spec.num_blocks} and {spec.num_classes} classes as read off the shapes."
            )
    checked = {}
    for name in wanted:
        if name not in optional:
            checked[name] = _check_values(name, tensors[name], path)
    cast = {str(tensors[name].dtype) for name in checked} - {"torch.float32"}
    if cast:
        notes.append(f"Weights stored as {', '.join(sorted(cast))} were read as float32.")
    return checked


def _check_extent(spec: ModelSpec, path: Path) -> None:
    """Refuse shapes of which no file can hold the values, before anything is made from them."""
    weights = sum(block.macs(block.stride, block.stride) for block in spec.blocks)  # one position
    weights += spec.num_classes * spec.planes[-1]
    if weights > MAX_PARAMETERS or len(spec.blocks) > MAX_BLOCKS:
        raise CheckpointError(
            f"checkpoint {path}: got {weights:,} parameters in {len(spec.blocks):,} blocks by its "
            f"shapes, expected at most {MAX_PARAMETERS:,} in {MAX_BLOCKS:,}. "
            "The file is damaged or not a ParNet."
        )


def _check_values(name: str, tensor: Tensor, path: Path) -> Tensor:
    if not tensor.is_floating_point() or tensor.layout != torch.strided:
        raise CheckpointError(
            f"checkpoint {path}: {name}: got {tensor.dtype} ({tensor.layout}), "
            "expected dense floating point. Give the weights before quantization."
        )
    if tensor.is_meta or tensor.untyped_storage().nbytes() < tensor.nbytes:
        raise CheckpointError(
            f"checkpoint {path}: {name}: got a tensor of shape {tuple(tensor.shape)} without its "
            "own values, expected each value to be stored. The file is damaged; "
            "save model.state_dict() again."
        )
    tensor = tensor.detach().to(torch.float32).contiguous()
    if not bool(torch.isfinite(tensor).all()):
        bad = int((~torch.isfinite(tensor)).sum())
        raise CheckpointError(
            f"checkpoint {path}: {name}: {bad} of {tensor.numel()} values are NaN or Inf in "
            "float32. The training diverged or the file is damaged; take an earlier checkpoint."
        )
    if name.endswith("running_var") and bool((tensor < 0).any()):
        raise CheckpointError(
            f"checkpoint {path}: {name}: got a negative variance {float(tensor.min()):.3g}, "
            "expected 0 or more. The file is damaged."
        )
    return tensor


def _count(names: Mapping[str, Any], pattern: str) -> int:
    """Number of different indices; a gap shows up later as a missing and an unexpected name."""
    return len({m.group(1) for name in names if (m := re.match(pattern, name))})


def _dimension(shapes: Mapping[str, tuple[int, ...]], name: str, axis: int, path: Path) -> int:
    shape = shapes.get(name)
    if shape is None or len(shape) <= axis:
        got = "it is missing" if shape is None else f"got shape {shape}"
        raise CheckpointError(
            f"checkpoint {path}: {name}: {got}; the network's size is read off it. "
            "The file is incomplete or not a ParNet."
        )
    return shape[axis]
