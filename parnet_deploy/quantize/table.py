"""``calibration.json``: the range of every tensor, how it was found, and for which model.

A table belongs to one set of graphs and one preprocessing; with another it is refused, for its
ranges would clip silently.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ..deployment import Deployment, step_key
from ..errors import DeploymentCorruptError, DeploymentError
from .ranges import METHODS, Method

TABLE = "calibration.json"
TABLE_SCHEMA = 1

_NEXT = "Run: parnet-deploy calibrate."
_KEYS: Mapping[str, type | tuple[type, ...]] = {
    "schema_version": int,
    "method": str,
    "percentile": (float, int, type(None)),
    "images": int,
    "data_sha256": str,
    "model_sha256": str,
    "preprocessing": dict,
    "clipped": float,
    "tensors": dict,
}


@dataclass(frozen=True, kw_only=True)
class TensorRange:
    """What was seen (``min``, ``max``) and what is kept (``low``, ``high``, zero included).

    ``clipped`` is the share of values on held-out images that the kept range cuts off.
    """

    min: float
    max: float
    low: float
    high: float
    clipped: float

    @property
    def amax(self) -> float:
        """The kept range around zero, for symmetric forms."""
        return max(-self.low, self.high)


@dataclass(frozen=True, kw_only=True)
class CalibrationTable:
    """Content of ``calibration.json``.

    ``clipped`` is the share of all values on held-out images that the ranges cut off together.
    """

    method: Method
    percentile: float | None
    images: int
    data_sha256: str
    model_sha256: str
    preprocessing: Mapping[str, Any]
    clipped: float
    tensors: Mapping[str, TensorRange]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types; ``from_json`` reads it back."""
        tensors = {name: asdict(found) for name, found in self.tensors.items()}
        return {
            "schema_version": TABLE_SCHEMA,
            "method": self.method,
            "percentile": self.percentile,
            "images": self.images,
            "data_sha256": self.data_sha256,
            "model_sha256": self.model_sha256,
            "preprocessing": dict(self.preprocessing),
            "clipped": self.clipped,
            "tensors": tensors,
        }

    @classmethod
    def from_json(cls, data: Any, where: str) -> CalibrationTable:
        """Inverse of ``to_json``.

        Raises:
            DeploymentCorruptError: A key is missing, unknown or wrong.
            DeploymentError: Another schema version wrote it.
        """
        if not isinstance(data, Mapping) or set(data) != set(_KEYS):
            got = sorted(map(str, data)) if isinstance(data, Mapping) else type(data).__name__
            raise _refused(where, "keys", got, sorted(_KEYS))
        if data["schema_version"] != TABLE_SCHEMA:
            raise DeploymentError(
                f"{where}: got schema version {data['schema_version']!r}, expected "
                f"{TABLE_SCHEMA}. {_NEXT}"
            )
        for key, kind in _KEYS.items():
            if not isinstance(data[key], kind) or isinstance(data[key], bool):
                raise _refused(where, key, repr(data[key])[:80], kind)
        if not 0 <= data["clipped"] <= 1:
            raise _refused(where, "clipped", data["clipped"], "a share")
        if data["method"] not in METHODS:
            raise _refused(where, "method", data["method"], METHODS)
        values = {key: data[key] for key in _KEYS if key not in ("schema_version", "tensors")}
        tensors = {name: _range(found, name, where) for name, found in data["tensors"].items()}
        return cls(**values, tensors=tensors)

    def require(self, deployment: Deployment) -> CalibrationTable:
        """Return self if the table was made for these graphs and this preprocessing.

        Raises:
            DeploymentError: It was made for others.
        """
        model = graphs_digest(deployment)
        if self.model_sha256 != model:
            raise DeploymentError(
                f"{TABLE} in {deployment.path}: got the ranges of another model "
                f"({self.model_sha256[:12]}), expected {model[:12]}. {_NEXT}"
            )
        if dict(self.preprocessing) != dict(deployment.preprocessing or {}):
            mine = dict(deployment.preprocessing or {})
            keys = {*self.preprocessing, *mine}
            differ = sorted(k for k in keys if self.preprocessing.get(k) != mine.get(k))
            raise DeploymentError(
                f"{TABLE} in {deployment.path}: got the ranges of another preprocessing "
                f"({', '.join(differ)}), expected the deployment's. {_NEXT}"
            )
        return self


def read_table(deployment: Deployment) -> CalibrationTable:
    """The table of a deployment, checked against its graphs and preprocessing.

    Raises:
        DeploymentError: There is none, it is damaged, or it was made for something else.
    """
    where = f"{TABLE} in {deployment.path}"
    if TABLE not in deployment.artifacts:
        raise DeploymentError(
            f"deployment {deployment.path}: got no {TABLE}, expected calibrated ranges. "
            "Run: parnet-deploy calibrate IMAGES."
        )
    try:
        data = json.loads(deployment.read_bytes(TABLE))
    except ValueError as error:
        raise DeploymentCorruptError(f"{where}: got {error}, expected JSON. {_NEXT}") from error
    return CalibrationTable.from_json(data, where).require(deployment)


def graphs_digest(deployment: Deployment) -> str:
    """Sha256 over the float32 part graphs: the model, and the size that it was exported for.

    Raises:
        DeploymentError: The deployment is not exported.
    """
    graphs = [f"onnx/{part.name}.onnx" for part in deployment.spec.parts]
    missing = [name for name in graphs if name not in deployment.artifacts]
    if missing:
        raise DeploymentError(
            f"deployment {deployment.path}: got no {missing[0]}, expected exported parts. "
            "Run: parnet-deploy export."
        )
    return step_key(graphs={name: deployment.artifacts[name]["sha256"] for name in graphs})


def _range(data: Any, name: str, where: str) -> TensorRange:
    fields = ("min", "max", "low", "high", "clipped")
    if not isinstance(data, Mapping) or set(data) != set(fields):
        raise _refused(where, f"tensor {name}", repr(data)[:80], fields)
    for key in fields:
        value = data[key]
        if isinstance(value, bool) or not isinstance(value, int | float) or not _finite(value):
            raise _refused(where, f"tensor {name} {key}", repr(value)[:80], "a finite number")
    found = TensorRange(**{key: float(data[key]) for key in fields})
    if not found.low <= 0 <= found.high or found.min > found.max or not 0 <= found.clipped <= 1:
        raise _refused(where, f"tensor {name}", found, "low <= 0 <= high and a share")
    return found


def _finite(value: float) -> bool:
    return abs(value) <= 3.4e38 and not math.isnan(value)


def _refused(where: str, key: str, got: object, expected: object) -> DeploymentCorruptError:
    return DeploymentCorruptError(f"{where}, {key}: got {got}, expected {expected}. {_NEXT}")
