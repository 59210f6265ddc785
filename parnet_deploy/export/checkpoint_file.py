"""Read a checkpoint file without ever running code from it.

Layouts: the authors' release (``*.pth.tar``: a dict with ``state_dict``, ``state_dict_ema``,
``args`` ...), a plain state dict saved by torch, and safetensors. Unpickling is always restricted
to tensors, plain containers and ``argparse.Namespace``; there is no unrestricted fallback.
"""

from __future__ import annotations

import argparse
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
_ARGUMENT_LENGTH = 4096  # items and characters; longer ones are left out
_INFLATION = 20  # times that a zip may be larger inside than on disk
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
        kinds = ((os.path.isdir, "a directory"), (os.path.exists, "no regular file"))
        got = next((text for is_kind, text in kinds if is_kind(path)), "no such file")
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
        _check_zip(path)
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on pickle protocols: refused or loaded, no third
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise _pickle_error(path, error) from error
    except (SafetensorError, *_CORRUPT) as error:
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
    kept = ((k, v) for k, v in found.items() if isinstance(k, str) and _is_plain([k, v]))
    return dict(islice(kept, _ARGUMENTS))


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


def _is_plain(value: object) -> bool:
    """Whether it is small plain JSON. Counts as it walks: a list may hold itself many times."""
    pending, seen = [(value, 0)], 0
    while pending:
        item, depth = pending.pop()
        seen += 1 + (len(item) if isinstance(item, (str, list, tuple)) else 0)
        if seen > _ARGUMENT_LENGTH or depth > _NESTING:
            return False
        if isinstance(item, (list, tuple)):
            pending += [(inner, depth + 1) for inner in item]
        elif not _is_plain_value(item):
            return False
    return True


def _is_plain_value(item: object) -> bool:
    if isinstance(item, float):
        return math.isfinite(item)
    if isinstance(item, int):
        return abs(item) < 2**63
    return item is None or isinstance(item, str)


def _check_zip(path: Path) -> None:
    """Compare every record of a zip with its checksum, which torch does not do.

    Raises:
        CheckpointError: A record is damaged, or the file inflates beyond reason.
    """
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        inflated = sum(record.file_size for record in archive.infolist())
        if inflated > _INFLATION * max(path.stat().st_size, 1 << 20):
            raise CheckpointError(
                f"checkpoint {path}: got {inflated:,} bytes packed into {path.stat().st_size:,}, "
                f"expected at most {_INFLATION} times the file. No training writes such a file."
            )
        bad = archive.testzip()
    if bad is not None:
        raise CheckpointError(
            f"checkpoint {path}: damaged: record {_printable(bad, _NAME_LENGTH)} does not fit its "
            "checksum. Copy it again."
        )


def _printable(text: str, length: int) -> str:
    shown = text if text.isprintable() else ascii(text)
    return shown if len(shown) <= length else shown[:length] + "..."


def _first_line(error: BaseException) -> str:
    return _printable((str(error) or type(error).__name__).splitlines()[0], 200)
