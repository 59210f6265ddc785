"""Read trained ParNet weights from a file, safely, and say what network they belong to.

Layouts: the authors' release (``*.pth.tar``: a dict with ``state_dict``, ``state_dict_ema``,
``args`` ...), a plain state dict saved by torch, and safetensors. Unpickling is always restricted
to tensors, plain containers and ``argparse.Namespace``; there is no unrestricted fallback.
"""

from __future__ import annotations

import argparse
import pickle
import re
import struct
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ..errors import AlreadyFusedError, CheckpointError, SpecError, UnsafeCheckpointError
from ..spec import Activation, ModelSpec
from ..storage.files import hash_file
from .activation import ActivationChoice, choose_activation
from .model import ParNet

WeightChoice = Literal["auto", "model", "ema"]
MAX_PARAMETERS = 2_000_000_000
_LISTED = 5  # names shown in an error before "and N more"
_CORRUPT = (RuntimeError, EOFError, OSError, ValueError, KeyError, TypeError, AttributeError,
            IndexError, AssertionError, struct.error, zipfile.BadZipFile)  # fmt: skip


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
    if not path.is_file():
        raise CheckpointError(f"checkpoint {path}: no such file. Check the path.")
    content, layout = _read(path)
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
        sha256=hash_file(path)[0],
        layout=layout,
        weights=chosen,
        spec=ModelSpec(**{**vars(spec), "activation": choice.activation}),
        tensors=tensors,
        activation=choice,
        training_args=_training_args(content),
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
            f"found {_some(shapes)}. Expected the state dict of the authors' SimpNet."
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


def _read(path: Path) -> tuple[Mapping[str, Any], Literal["release", "state-dict", "safetensors"]]:
    with path.open("rb") as file:
        start = file.read(9)
    if len(start) == 9 and start[8:] == b"{":  # 8 bytes of header length, then JSON
        try:
            return load_file(path), "safetensors"
        except (SafetensorError, *_CORRUPT) as error:
            raise CheckpointError(
                f"checkpoint {path}: damaged or cut off: {_first_line(error)}. Copy it again."
            ) from error
    try:
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on pickle protocols: refused or loaded, no third
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise _pickle_error(path, error) from error
    except _CORRUPT as error:
        raise CheckpointError(
            f"checkpoint {path}: damaged, cut off or not a checkpoint: {_first_line(error)}. "
            "Copy it again, or save it with torch.save(model.state_dict(), ...)."
        ) from error
    if not isinstance(content, Mapping):
        raise CheckpointError(
            f"checkpoint {path}: got a {type(content).__name__}, expected a dict of tensors. "
            "Save model.state_dict(), not the model."
        )
    known = "state_dict" in content or "state_dict_ema" in content
    return content, "release" if known else "state-dict"


def _pickle_error(path: Path, error: pickle.UnpicklingError) -> CheckpointError:
    """Tell a file that asks for code from one that is merely damaged."""
    text = str(error)
    asked = re.search(r"(?:GLOBAL|Unsupported (?:class|global):?)\s+`?([\w.]+)", text)
    if asked or "Unsupported operand" in text or "Unsupported class" in text:
        name = asked.group(1) if asked else "a construct that can run code"
        return UnsafeCheckpointError(
            f"checkpoint {path}: refused: the file asks for {name}; only tensors, plain "
            "containers and argparse.Namespace are loaded. Nothing was executed. Where you "
            "trust its origin, save only the state dict: torch.save(model.state_dict(), ...)."
        )
    return CheckpointError(
        f"checkpoint {path}: damaged or not a checkpoint: {_first_line(error)}. Copy it again."
    )


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
        name for name in ("ema", "model") if content.get(keys[name])
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


def _only_tensors(state: Mapping[Any, Any], path: Path) -> dict[str, Tensor]:
    wrong = [str(k) for k, v in state.items() if not (isinstance(k, str) and isinstance(v, Tensor))]
    if wrong or not state:
        raise CheckpointError(
            f"checkpoint {path}: not a state dict: {_some(wrong) if wrong else 'empty'}: "
            "expected tensors by name. Save model.state_dict()."
        )
    return dict(state)


def _strip_prefixes(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Drop what DataParallel and torch.compile put before every name."""
    for prefix in ("module.", "_orig_mod.") * 2:
        if all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): t for name, t in tensors.items()}
    return tensors


def _refuse_fused(tensors: Mapping[str, Tensor], path: Path) -> None:
    marks = (".rbr_dense.weight", ".rbr_reparam.weight", ".gate.weight", ".conv_a.weight")
    found = [name for name in tensors if name.endswith(marks)]
    if found:
        raise AlreadyFusedError(
            f"checkpoint {path}: fused already: got {_some(found)}, expected the training form "
            "(rbr_dense.conv and rbr_dense.bn). Give the checkpoint that training wrote."
        )


def _check_tensors(
    tensors: dict[str, Tensor], spec: ModelSpec, path: Path, notes: list[str]
) -> dict[str, Tensor]:
    """Compare names and shapes with those of the network, refuse what is not finite."""
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
                f"checkpoint {path}: {what}: {_some(names)}, for planes {spec.planes}, blocks "
                f"{spec.num_blocks} and {spec.num_classes} classes as read off the shapes."
            )
    if sum(shape.numel() for shape in wanted.values()) > MAX_PARAMETERS:
        raise CheckpointError(f"checkpoint {path}: over {MAX_PARAMETERS:,} parameters: refused.")
    checked = {}
    for name in wanted:
        if name not in optional:
            checked[name] = _check_values(name, tensors[name], path)
    cast = {str(tensors[name].dtype) for name in checked} - {"torch.float32"}
    if cast:
        notes.append(f"Weights stored as {', '.join(sorted(cast))} were read as float32.")
    return checked


def _check_values(name: str, tensor: Tensor, path: Path) -> Tensor:
    if not tensor.is_floating_point() or tensor.layout != torch.strided:
        raise CheckpointError(
            f"checkpoint {path}: {name}: got {tensor.dtype} ({tensor.layout}), "
            "expected dense floating point. Give the weights before quantization."
        )
    tensor = tensor.detach().to(torch.float32).contiguous()
    bad = int((~torch.isfinite(tensor)).sum())
    if bad:
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


def _training_args(content: Mapping[str, Any]) -> dict[str, Any]:
    """What the release layout says of its training, as far as plain JSON types go."""
    args = content.get("args")
    found: dict[str, Any] = dict(vars(args)) if isinstance(args, argparse.Namespace) else {}
    found |= {k: content[k] for k in ("arch", "epoch", "metric", "version") if k in content}
    return {k: v for k, v in found.items() if _is_plain(v)}


def _is_plain(value: object) -> bool:
    if isinstance(value, (list, tuple)):
        return all(_is_plain(item) for item in value)
    return value is None or isinstance(value, (bool, int, float, str))


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


def _some(names: Any) -> str:
    names = list(names)
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:200]
