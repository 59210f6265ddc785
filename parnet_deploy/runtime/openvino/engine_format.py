"""The file of an engine: OpenVINO's network description (XML) and its weights, as one ``.npz``."""

from __future__ import annotations

import io
import zipfile
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]

DAMAGED = (ValueError, KeyError, EOFError, OSError, zipfile.BadZipFile, zlib.error)
"""What ``unpack_network`` raises for bytes that ``write_network`` has not written."""


def write_network(output: Path, *, xml: bytes, weights: bytes) -> None:
    """Write both as arrays of uint8, uncompressed."""
    with output.open("wb") as file:
        np.savez(file, xml=np.frombuffer(xml, np.uint8), weights=np.frombuffer(weights, np.uint8))


def unpack_network(data: bytes) -> tuple[str, Bytes]:
    """Inverse of ``write_network``: the description, and the weights in memory of their own."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        damaged = archive.testzip()  # NumPy would believe a damaged header
    if damaged is not None:
        raise ValueError(f"{damaged} is damaged")
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        xml, weights = arrays["xml"], arrays["weights"]
    for array in (xml, weights):
        if array.dtype != np.uint8 or array.ndim != 1:
            raise ValueError(f"array: got {array.dtype} {array.shape}, expected uint8 (N,)")
    return xml.tobytes().decode(), weights
