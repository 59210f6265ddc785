"""The manifest ``deployment.json``: everything about one model, checked field by field."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import (
    DeploymentCorruptError,
    DeploymentError,
    DeploymentNotFoundError,
    SpecError,
)
from ..input_size import InputSize
from ..spec import ModelSpec
from . import names
from .document import MAX_DOCUMENT_BYTES, canonical, seal, unseal
from .files import open_plain
from .summaries import check_plan, check_source

SCHEMA_VERSION = 1
MAX_STREAMS = 16
MAX_WIDTH = 1_000_000
"""Of channels, classes and image sides; limits, so that a hostile file costs no endless work."""
MAX_ARTIFACT_BYTES = 1 << 62

_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
_FIELDS = {
    "schema_version": int,
    "written": str,
    "writer": str,
    "spec": dict,
    "input_size": (dict, type(None)),
    "preprocessing": (dict, type(None)),
    "labels": (list, type(None)),
    "source": dict,
    "steps": dict,
    "plans": dict,
    "artifacts": dict,
    "sha256": str,
}
_STEP_FIELDS = {
    "key": str,
    "options": dict,
    "versions": dict,
    "made_from": dict,
    "files": list,
    "finished": str,
}
_ARTIFACT_FIELDS = {"sha256": str, "bytes": int, "step": str}


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Content of ``deployment.json``. ``digest`` is its seal: equal digest, equal content."""

    spec: ModelSpec
    input_size: InputSize | None
    preprocessing: Mapping[str, Any] | None
    labels: tuple[str, ...] | None
    source: Mapping[str, Any]
    steps: Mapping[str, Mapping[str, Any]]
    plans: Mapping[str, Mapping[str, Any]]
    artifacts: Mapping[str, Mapping[str, Any]]
    written: str
    writer: str
    digest: str = ""

    def render(self) -> bytes:
        """The file's bytes; ``parse`` reads them back."""
        size = self.input_size
        return seal(
            {
                "schema_version": SCHEMA_VERSION,
                "written": self.written,
                "writer": self.writer,
                "spec": self.spec.to_json(),
                "input_size": None if size is None else size.to_json(),
                "preprocessing": self.preprocessing,
                "labels": self.labels,
                "source": self.source,
                "steps": self.steps,
                "plans": self.plans,
                "artifacts": self.artifacts,
            }
        )

    @classmethod
    def parse(cls, raw: bytes, where: str) -> Manifest:
        """Read and check a manifest.

        Raises:
            DeploymentCorruptError: It was changed since it was written, or a field is not what
                this package writes.
            DeploymentError: Another schema version.
        """
        data = unseal(raw, where, schema_version=SCHEMA_VERSION)
        try:
            _check_fields(data, _FIELDS, "")
            spec = _read_spec(data["spec"])
            size = _read_size(data["input_size"], spec)
            labels = _read_labels(data["labels"], spec)
            _check_artifacts(data["artifacts"], data["steps"])
            _check_steps(data["steps"], data["artifacts"])
            _check_plans(data["plans"], data["steps"])
            check_source(data["source"])
        except (ValueError, SpecError) as error:
            raise DeploymentCorruptError(
                f"{where}: {error} Build the deployment again: parnet-deploy fuse model.pt."
            ) from error
        return cls(
            spec=spec,
            input_size=size,
            preprocessing=data["preprocessing"],
            labels=labels,
            source=data["source"],
            steps=data["steps"],
            plans=data["plans"],
            artifacts=data["artifacts"],
            written=data["written"],
            writer=data["writer"],
            digest=data["sha256"],
        )


def load_manifest(root: Path) -> Manifest:
    """Read ``deployment.json`` of the directory. Does not look at a journal.

    Raises:
        DeploymentNotFoundError: There is none.
        DeploymentCorruptError: See ``Manifest.parse``.
        DeploymentError: Another schema version, or the file cannot be read.
    """
    path = root / names.MANIFEST
    try:
        if not names.is_inside(root, names.MANIFEST):
            raise DeploymentCorruptError(
                f"manifest {path}: got a symbolic link that leads outside, expected a file. "
                "Copy the deployment as a whole directory."
            )
        with open_plain(path) as file:
            raw = file.read(MAX_DOCUMENT_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DeploymentNotFoundError(
            f"deployment {root}: got no {names.MANIFEST} there, expected a directory written by "
            "this package. Run: parnet-deploy fuse model.pt."
        ) from error
    except (OSError, RuntimeError, ValueError) as error:
        # RuntimeError: a loop of symbolic links; ValueError: no file name
        raise DeploymentError(
            f"manifest {path}: cannot read it: got {error}, expected a readable file. "
            "Check the permissions of the directory."
        ) from error
    if len(raw) > MAX_DOCUMENT_BYTES:
        raise DeploymentCorruptError(
            f"manifest {path}: got more than {MAX_DOCUMENT_BYTES} bytes, expected fewer. "
            "This is not a manifest of this package."
        )
    return Manifest.parse(raw, f"manifest {path}")


def _check_fields(data: Any, fields: Mapping[str, Any], where: str) -> None:
    if not isinstance(data, dict):
        raise ValueError(f"{where}got {type(data).__name__}, expected an object.")
    if set(data) != set(fields):
        raise ValueError(f"{where}got the fields {sorted(data)}, expected {sorted(fields)}.")
    for key, expected in fields.items():
        wanted = expected if isinstance(expected, tuple) else (expected,)
        if type(data[key]) not in wanted:  # not isinstance: True is no number
            found = " or ".join(kind.__name__ for kind in wanted)
            raise ValueError(f"{where}{key}: got {data[key]!r}, expected {found}.")


def _read_spec(data: Mapping[str, Any]) -> ModelSpec:
    spec = ModelSpec.from_json(data)
    if canonical(spec.to_json()) != canonical(data):
        raise ValueError(f"spec: got {data!r}, expected {spec.to_json()!r}.")
    if spec.streams > MAX_STREAMS:
        raise ValueError(f"spec: got {spec.streams} streams, expected at most {MAX_STREAMS}.")
    largest = max(*spec.planes, spec.num_classes, spec.in_channels)
    if largest > MAX_WIDTH:
        raise ValueError(f"spec: got a width of {largest}, expected at most {MAX_WIDTH}.")
    return spec


def _read_size(data: Mapping[str, Any] | None, spec: ModelSpec) -> InputSize | None:
    if data is None:
        return None
    size = InputSize.from_json(data)
    if canonical(size.to_json()) != canonical(data):
        raise ValueError(f"input_size: got {data!r}, expected {size.to_json()!r}.")
    if max(size.high) > MAX_WIDTH:
        raise ValueError(f"input_size: got {size}, expected sides of at most {MAX_WIDTH}.")
    size.check(spec, *size.low)
    size.check(spec, *size.high)
    return size


def _read_labels(data: list[Any] | None, spec: ModelSpec) -> tuple[str, ...] | None:
    if data is None:
        return None
    if not all(isinstance(label, str) for label in data):
        raise ValueError("labels: got something else, expected strings.")
    if len(data) != spec.num_classes:
        raise ValueError(f"labels: got {len(data)}, expected one for each of {spec.num_classes}.")
    return tuple(data)


def _check_artifacts(artifacts: Mapping[str, Any], steps: Mapping[str, Any]) -> None:
    for name, record in artifacts.items():
        problem = names.artifact_problem(name)
        if problem:
            raise ValueError(f"artifact {name!r}: {problem}.")
        _check_fields(record, _ARTIFACT_FIELDS, f"artifact {name}: ")
        sized = 0 <= record["bytes"] <= MAX_ARTIFACT_BYTES
        if not _SHA256.match(record["sha256"]) or not sized:
            raise ValueError(f"artifact {name}: got {record!r}, expected a sha256 and a size.")
        if record["step"] not in steps:
            raise ValueError(f"artifact {name}: got the step {record['step']!r}, which is unknown.")
    both = names.clash(artifacts)
    if both:
        raise ValueError(f"artifacts {both}: got both, expected one (same place on some disks).")


def _check_steps(steps: Mapping[str, Any], artifacts: Mapping[str, Any]) -> None:
    for step, record in steps.items():
        rank = names.step_rank(step)
        if rank is None:
            raise ValueError(f"step {step!r}: expected one of {', '.join(names.STEP_KINDS)}.")
        _check_fields(record, _STEP_FIELDS, f"step {step}: ")
        for source, key in record["made_from"].items():
            source_rank = names.step_rank(source)
            if source_rank is None or source_rank >= rank or not isinstance(key, str):
                raise ValueError(f"step {step}: got made_from {source!r}, expected earlier steps.")
        for name in record["files"]:
            known = isinstance(name, str) and name in artifacts
            # an unknown one was removed from the deployment: the step is not current any more
            if not isinstance(name, str) or (known and artifacts[name]["step"] != step):
                raise ValueError(f"step {step}: got the file {name!r}, which is another step's.")


def _check_plans(plans: Mapping[str, Any], steps: Mapping[str, Any]) -> None:
    for key, plan in plans.items():
        if not names.is_plan_key(key):
            raise ValueError(f"plan {key!r}: got this name, expected letters, digits and ._-.")
        check_plan(key, plan, steps)
