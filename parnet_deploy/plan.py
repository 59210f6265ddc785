"""What ``plans/<key>/build.json`` says: which engines run where, for which inputs, how made."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from .errors import DeploymentCorruptError, DeploymentError, ParnetDeployError
from .input_size import InputSize
from .placement import Placement

PLAN_SCHEMA = 1
PLAN_FILE = "build.json"
CANARY_FILE = "canary.npz"
PRECISIONS = ("fp32", "fp16", "bf16", "int8")
MIXED = "mixed"
AUTO = "auto"
MAX_BATCH = 65536
MAX_THREADS = 1024

_REBUILD = "Run: parnet-deploy build."


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One built placement.

    ``engines`` gives for each segment the engine's file name, relative to the plan directory.
    ``backends`` is for the backend "mixed" only, and gives each segment's own.
    ``threads`` is how many cores the engines may use; None means every core the process may use.
    ``measured`` is free: the table of placements that were tried, ``median_ms`` of this one.
    ``made`` is free: versions, device fingerprint, times, the canary's ``tolerance``.
    """

    backend: str
    placement: Placement
    input_size: InputSize
    max_batch: int
    engines: Mapping[str, str]
    backends: Mapping[str, str] = field(default_factory=dict)
    precision: str = "fp32"
    threads: int | None = None
    measured: Mapping[str, Any] = field(default_factory=dict)
    made: Mapping[str, Any] = field(default_factory=dict)
    schema_version: int = PLAN_SCHEMA

    def __post_init__(self) -> None:
        _check_version(self.schema_version)
        if self.precision not in PRECISIONS:
            raise _unexpected("precision", self.precision, f"one of {', '.join(PRECISIONS)}")
        if not 1 <= self.max_batch <= MAX_BATCH:
            raise _unexpected("max_batch", self.max_batch, f"1 to {MAX_BATCH}")
        if self.threads is not None and not 1 <= self.threads <= MAX_THREADS:
            expected = f"1 to {MAX_THREADS}, or null for every core"
            raise _unexpected("threads", self.threads, expected)
        segments = {segment.name for segment in self.placement.segments}
        if set(self.engines) != segments:
            raise _unexpected(
                "engines", sorted(self.engines), f"one for each of {sorted(segments)}"
            )
        wanted = segments if self.backend == MIXED else set[str]()
        if set(self.backends) != wanted:
            expected = f"one for each of {sorted(wanted)}" if wanted else "none"
            raise _unexpected("backends", sorted(self.backends), expected)
        for name in self.engines.values():
            if PurePosixPath(name).name != name or "\\" in name or name in ("", ".."):
                raise _unexpected("engines", name, "a file name without a folder")

    @property
    def homes(self) -> Mapping[str, str]:
        """Segment -> the backend that runs it."""
        return self.backends or dict.fromkeys(self.engines, self.backend)

    @property
    def median_ms(self) -> float | None:
        """Measured median latency of this placement in milliseconds, if the build measured it."""
        value = self.measured.get("median_ms")
        if not isinstance(value, int | float) or abs(value) > sys.float_info.max:
            return None
        return float(value)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types; ``from_json`` reads it back."""
        mixed = {"backends": dict(self.backends)} if self.backends else {}
        return {
            "schema_version": self.schema_version,
            "backend": self.backend,
            **mixed,
            "placement": self.placement.to_json(),
            "precision": self.precision,
            "input_size": self.input_size.to_json(),
            "max_batch": self.max_batch,
            "engines": dict(self.engines),
            "threads": self.threads,
            "measured": dict(self.measured),
            "made": dict(self.made),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Plan:
        """Inverse of ``to_json``.

        Raises:
            DeploymentError: Another schema version wrote it.
            DeploymentCorruptError: A key is missing, unknown, or has the wrong type or value.
        """
        if not isinstance(data, Mapping):
            raise _unexpected("the file", type(data).__name__, "a JSON object")
        _check_version(data.get("schema_version"))  # first: another version has other keys
        unknown = sorted(set(data) - {*_READERS, "schema_version"})
        if unknown:
            raise _unexpected("keys", unknown, f"only {sorted(_READERS)}")
        there = [key for key in _READERS if key in data or key not in _OPTIONAL]
        return cls(**{key: _read(data, key) for key in there})


def asked_backend(key: str, backend: str) -> str:
    """What ``build --backend`` is to be told to make a plan again; what it chose itself is "auto".

    Args:
        key: Of the plan, which begins with what was asked for.
        backend: The plan's.
    """
    return AUTO if backend == MIXED or key.startswith(f"{AUTO}-") else backend


def _check_version(version: object) -> None:
    if version != PLAN_SCHEMA:
        raise DeploymentError(
            f"plan: got schema version {version!r}, expected {PLAN_SCHEMA}. "
            "Build it again with this version of parnet-deploy."
        )


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("a string")
    return value


def _integer(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError("an integer")
    return value


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError("an object")
    return value


def _names(value: Any) -> dict[str, str]:
    return {_text(key): _text(name) for key, name in _object(value).items()}


_READERS: dict[str, Callable[[Any], Any]] = {
    "backend": _text,
    "placement": lambda value: Placement.from_json(_object(value)),
    "precision": _text,
    "input_size": lambda value: InputSize.from_json(_object(value)),
    "max_batch": _integer,
    "engines": _names,
    "backends": _names,
    "threads": lambda value: None if value is None else _integer(value),
    "measured": _object,
    "made": _object,
}
_OPTIONAL = {"backends"}


def _read(data: Mapping[str, Any], key: str) -> Any:
    if key not in data:
        raise _unexpected(key, "nothing", "a value")
    try:
        return _READERS[key](data[key])
    except TypeError as error:
        raise _unexpected(key, repr(data[key]), str(error)) from error
    except ParnetDeployError as error:
        raise DeploymentCorruptError(f"plan, key {key}: {error} {_REBUILD}") from error


def _unexpected(key: str, got: object, expected: str) -> DeploymentCorruptError:
    return DeploymentCorruptError(f"plan, key {key}: got {got}, expected {expected}. {_REBUILD}")
