"""The name of an engine in the cache: a digest of all that could make another engine."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ...storage.document import canonical

KEY_SCHEMA = 1  # raise when the same inputs would give another engine or another record


@dataclass(frozen=True, kw_only=True)
class EngineKey:
    """What an engine depends on; all plain JSON types.

    ``device`` is the name of the GPU's model, not of the card: equal cards share engines.
    ``driver`` is the driver's major version. ``traits`` are what this installation of TensorRT has
    or lacks. ``options`` leaves out what does not change the engine.
    """

    graph_sha256: str
    tensorrt: str
    device: str
    compute_capability: str
    driver: str
    precision: str
    keep_float: Sequence[str]
    profiles: Sequence[Mapping[str, Any]]
    options: Mapping[str, Any]
    traits: Mapping[str, Any]
    schema: int = KEY_SCHEMA

    @property
    def digest(self) -> str:
        """Sha256 in hex."""
        return hashlib.sha256(canonical(asdict(self))).hexdigest()
