"""Where the fused weights of two deployments differ, block by block.

A safetensors file is read without the library of that name: 8 bytes with the length of a JSON
header, the header (tensor -> dtype, shape, data_offsets), then the data.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..deployment import Deployment
from ..errors import DeploymentCorruptError
from ..spec import ModelSpec

FUSED = "fused.safetensors"
_LENGTH_BYTES = 8

Weights = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True, kw_only=True)
class BlockChange:
    """One block whose weights differ. A hash is None where the block is not there.

    ``change`` is the largest difference, divided by the largest weight of the first; None if the
    block has not the same tensors in both, or a weight is not finite.
    """

    block: str
    before: str | None
    after: str | None
    change: float | None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)


def compare_weights(first: Deployment, second: Deployment) -> list[BlockChange]:
    """Blocks whose fused weights differ, in the order of the network; other tensors come last.

    Raises:
        DeploymentError: A deployment has no fused weights, or they are not what was written.
    """
    sides = [_by_block(read_weights(one), one.spec) for one in (first, second)]
    hashes = [{name: _hash(found) for name, found in side.items()} for side in sides]
    return [
        BlockChange(
            block=name,
            before=hashes[0].get(name),
            after=hashes[1].get(name),
            change=_change(sides[0].get(name), sides[1].get(name)),
        )
        for name in dict.fromkeys(_order(first.spec) + _order(second.spec) + [*sides[0], *sides[1]])
        if hashes[0].get(name) != hashes[1].get(name)
    ]


def read_weights(deployment: Deployment) -> Weights:
    """The fused weights by name. Owns: views of the bytes that were read.

    Raises:
        DeploymentError: There are none, or they are not what was written.
    """
    data = deployment.read_bytes(FUSED)
    try:
        return dict(_tensors(data))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DeploymentCorruptError(
            f"artifact {FUSED} in {deployment.path}: got {error!r}, expected float32 tensors in "
            "the safetensors format. Run: parnet-deploy fuse model.pt."
        ) from error


def _tensors(data: bytes) -> Iterator[tuple[str, NDArray[np.float32]]]:
    length = int.from_bytes(data[:_LENGTH_BYTES], "little")
    start = _LENGTH_BYTES + length
    for name, about in json.loads(data[_LENGTH_BYTES:start].decode("utf-8")).items():
        if name == "__metadata__":
            continue
        if about["dtype"] != "F32":
            raise ValueError(f"{name} in {about['dtype']}")
        first, last = about["data_offsets"]
        shape = tuple(about["shape"])
        body = memoryview(data)[start + first : start + last]
        if min(first, *shape, 0) < 0 or len(body) != 4 * prod(shape):
            raise ValueError(f"{name} of {len(body)} bytes for {shape}")
        yield name, np.frombuffer(body, dtype="<f4").reshape(shape)


def _by_block(weights: Weights, spec: ModelSpec) -> dict[str, dict[str, NDArray[np.float32]]]:
    """Tensors are named ``<block>.<field>``, and a field's name may have dots too."""
    blocks = set(_order(spec))
    found: dict[str, dict[str, NDArray[np.float32]]] = {}
    for name, tensor in sorted(weights.items()):
        words = name.split(".")
        starts = (".".join(words[:count]) for count in range(1, len(words)))
        block = next((start for start in starts if start in blocks), ".".join(words[:-1]))
        found.setdefault(block, {})[name.removeprefix(f"{block}.")] = tensor
    return found


def _order(spec: ModelSpec) -> list[str]:
    return [block.name for block in spec.blocks]


def _hash(tensors: Weights) -> str:
    """Sha256 over names, shapes and data of a block's tensors."""
    digest = hashlib.sha256()
    for name, tensor in tensors.items():
        digest.update(f"{name} {tensor.shape}\n".encode())
        digest.update(tensor.tobytes())
    return digest.hexdigest()


def _change(first: Weights | None, second: Weights | None) -> float | None:
    if first is None or second is None or _shapes(first) != _shapes(second):
        return None
    largest = max(_largest(tensor) for tensor in first.values())
    with np.errstate(invalid="ignore"):  # Inf - Inf
        apart = max(_largest(tensor.astype(np.float64) - second[k]) for k, tensor in first.items())
    change = apart / largest if largest > 0 else apart
    return change if math.isfinite(change) else None


def _largest(values: NDArray[Any]) -> float:
    return float(np.abs(values).max(initial=0))


def _shapes(tensors: Weights) -> dict[str, tuple[int, ...]]:
    return {name: tensor.shape for name, tensor in tensors.items()}
