"""What the parent asks its child to build, as a JSON file between the two."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ...errors import SpecError
from .config import HARDWARE
from .profiles import Profile, profiles_from_json, profiles_to_json


@dataclass(frozen=True, kw_only=True)
class TensorRtOptions:
    """How to build. Precision is no option: it is in the graph.

    ``optimization_level`` 0 to 5: how long to search. ``aux_streams``: cuda_streams that one engine
    may use besides the caller's. ``workspace_mib``: scratch memory that tactics may ask for; None
    is all. ``hardware_compatibility`` other than "none" lets the plan run on other GPUs, slower.
    ``timing_iterations``: runs that each tactic's time is averaged over; None is TensorRT's own.
    ``tf32`` lets float32 convolutions round their inputs to 10 bits. ``timeout_s`` ends a build
    that hangs; it does not change the engine.
    """

    optimization_level: int = 3
    aux_streams: int = 0
    workspace_mib: int | None = None
    hardware_compatibility: str = "none"
    timing_iterations: int | None = None
    tf32: bool = False
    timeout_s: float | None = None

    def __post_init__(self) -> None:
        _check("optimization level", self.optimization_level, 0, 5)
        _check("aux streams", self.aux_streams, 0, 32)
        _check("workspace MiB", self.workspace_mib, 1, 2**24)
        _check("timing iterations", self.timing_iterations, 1, 1000)
        if self.timeout_s is not None and not self.timeout_s > 0:
            raise SpecError(f"timeout: got {self.timeout_s} s, expected more than 0.")
        if self.hardware_compatibility not in HARDWARE:
            raise SpecError(
                f"hardware compatibility: got {self.hardware_compatibility!r}, expected one of "
                f"{', '.join(HARDWARE)}."
            )

    def to_json(self) -> dict[str, Any]:
        """What shapes the engine, as plain JSON types."""
        return {name: value for name, value in asdict(self).items() if name != "timeout_s"}


def _check(what: str, value: int | None, least: int, greatest: int) -> None:
    if value is not None and not least <= value <= greatest:
        raise SpecError(f"{what}: got {value}, expected {least} to {greatest}.")


@dataclass(frozen=True, kw_only=True)
class Job:
    """One engine to build. The files are inside a folder of the parent, but for ``timing_cache``.

    ``half``, ``quantized`` and ``keep_float`` are those of ``GraphFacts``.
    """

    name: str
    device: int
    graph: Path
    plan: Path
    result: Path
    timing_cache: Path
    profiles: Sequence[Profile]
    options: TensorRtOptions
    half: bool = False
    quantized: bool = False
    keep_float: Sequence[str] = field(default=())

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types; ``from_json`` reads it back."""
        files = ("graph", "plan", "result", "timing_cache")
        return {
            **{name: str(getattr(self, name)) for name in files},
            **{name: getattr(self, name) for name in ("name", "device", "half", "quantized")},
            "keep_float": list(self.keep_float),
            "profiles": profiles_to_json(self.profiles),
            "options": self.options.to_json(),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Job:
        """Inverse of ``to_json``."""
        return cls(
            name=data["name"],
            device=data["device"],
            graph=Path(data["graph"]),
            plan=Path(data["plan"]),
            result=Path(data["result"]),
            timing_cache=Path(data["timing_cache"]),
            profiles=profiles_from_json(data["profiles"]),
            options=TensorRtOptions(**data["options"]),
            half=data["half"],
            quantized=data["quantized"],
            keep_float=tuple(data["keep_float"]),
        )
