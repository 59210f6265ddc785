"""Read a checkpoint file without ever running code from it.

Layouts: the authors' release (``*.pth.tar``: a dict with ``state_dict``, ``state_dict_ema``,
``args`` ...), a plain state dict saved by torch, and safetensors. Unpickling is always restricted
to tensors, plain containers and ``argparse.Namespace``; there is no unrestricted fallback.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import pickle
import pickletools
import re
import struct
import warnings
import zipfile
from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from ..errors import CheckpointError, UnsafeCheckpointError
from ..storage.files import hash_file

Layout = Literal["release", "state-dict", "safetensors"]

_LISTED = 5  # names shown in an error before "and N more"
_NAME_LENGTH = 120  # of a name shown in an error
_ARGUMENTS = 500  # kept of what a file says of its training
_ARGUMENT_LENGTH = 4096  # as JSON; longer ones are left out
_NESTING = 8
_CORRUPT = (RuntimeError, EOFError, OSError, ValueError, LookupError, TypeError, AttributeError,
            AssertionError, ArithmeticError, MemoryError, struct.error,
            zipfile.BadZipFile)  # fmt: skip
_CALLS = ("unrecognized function", "Can only create new object", "Can only build")


def hash_checkpoint(path: Path) -> str:
    """Sha256 of the file.

    Raises:
        CheckpointError: There is no such file, or it cannot be read.
    """
    if not os.path.isfile(path):  # false for names that no file can have, too
        got = "a directory" if os.path.isdir(path) else "no such file"
        raise CheckpointError(f"checkpoint {path}: got {got}, expected a file. Check the path.")
    try:
        return hash_file(path)[0]
    except OSError as error:
        raise _unreadable(path, error) from error


def read_file(path: Path) -> tuple[Mapping[str, Any], Layout]:
    """The content of a checkpoint, a dict of whatever, and how it was laid out.

    Raises:
        UnsafeCheckpointError: Loading would need code from the file; nothing was executed.
        CheckpointError: It cannot be read, or is not a dict.
    """
    try:
        with path.open("rb") as file:
            start = file.read(9)
    except OSError as error:
        raise _unreadable(path, error) from error
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


def read_training_args(content: Mapping[str, Any]) -> dict[str, Any]:
    """What the release layout says of its training, as far as it is plain JSON and not huge."""
    args = content.get("args")
    found: dict[Any, Any] = dict(vars(args)) if isinstance(args, argparse.Namespace) else {}
    found |= {k: content[k] for k in ("arch", "epoch", "metric", "version") if k in content}
    kept = ((k, v) for k, v in found.items() if isinstance(k, str) and _is_plain(v, _NESTING))
    return dict(islice((kv for kv in kept if len(json.dumps(kv)) <= _ARGUMENT_LENGTH), _ARGUMENTS))


def list_some(names: Iterable[str]) -> str:
    """The first few names for an error: one line, whatever the file calls its tensors."""
    names = list(names)
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(_printable(name, _NAME_LENGTH) for name in names[:_LISTED]) + more


def _unreadable(path: Path, error: OSError) -> CheckpointError:
    return CheckpointError(
        f"checkpoint {path}: cannot read it: {error.strerror or error}. Check its permissions."
    )


def _pickle_error(path: Path, error: pickle.UnpicklingError) -> CheckpointError:
    """Tell a file that asks for code from one that is merely damaged."""
    text = str(error)
    name = re.search(r"GLOBAL ([\w.]+)", text)
    operation = re.search(r"Unsupported operand (\d+)", text)
    asked = None
    if name:
        asked = name.group(1)
    elif any(call in text for call in _CALLS):
        asked = "a call of something else than these"
    elif operation and _is_pickle(path):
        asked = f"pickle operation {operation.group(1)}, which the safe reader does not have"
    if asked:
        return UnsafeCheckpointError(
            f"checkpoint {path}: refused: the file asks for {asked}; only tensors, plain "
            "containers and argparse.Namespace are loaded. Nothing was executed. Where you "
            "trust its origin, save only the state dict: torch.save(model.state_dict(), ...)."
        )
    why = "not a pickle" if operation else _first_line(error)
    return CheckpointError(
        f"checkpoint {path}: damaged or not a checkpoint: {why}. Copy it again, or save it with "
        "torch.save(model.state_dict(), ...)."
    )


def _is_pickle(path: Path) -> bool:
    """Whether the file is a pickle, or a zip that holds one. Parses; executes nothing."""
    if zipfile.is_zipfile(path):
        return True
    try:
        with path.open("rb") as file:
            for _ in pickletools.genops(file):
                pass
    except _CORRUPT:
        return False
    return True


def _is_plain(value: object, depth: int) -> bool:
    if isinstance(value, (list, tuple)):
        return depth > 0 and all(_is_plain(item, depth - 1) for item in value)
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or isinstance(value, (bool, int, str))


def _printable(text: str, length: int) -> str:
    shown = text if text.isprintable() else ascii(text)
    return shown if len(shown) <= length else shown[:length] + "..."


def _first_line(error: BaseException) -> str:
    return _printable((str(error) or type(error).__name__).splitlines()[0], 200)
