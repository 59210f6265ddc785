"""How many replicas run on the cluster, and what of a machine each of them gets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...errors import SpecError

_MOST_REPLICAS = 4096


@dataclass(frozen=True, kw_only=True)
class ScaleOptions:
    """``replicas`` always, or from so many up to ``max_replicas`` as the load wants.

    ``target_ongoing``: requests at a time for each replica that autoscaling aims at. ``cpus`` and
    ``gpus``: what Ray sets aside for each replica; None: what its plans need.
    """

    replicas: int = 1
    max_replicas: int | None = None
    target_ongoing: float = 2.0
    cpus: int | None = None
    gpus: int | None = None

    def __post_init__(self) -> None:
        _check("replicas", self.replicas, 1, _MOST_REPLICAS)
        if self.max_replicas is not None:
            _check("max_replicas", self.max_replicas, self.replicas, _MOST_REPLICAS)
        if not 0 < self.target_ongoing < float("inf"):
            raise SpecError(
                f"target_ongoing: got {self.target_ongoing}, expected more than 0. "
                "It is how many requests at a time each replica should have."
            )
        if self.cpus is not None:
            _check("cpus", self.cpus, 1, 1024)
        if self.gpus is not None:
            _check("gpus", self.gpus, 0, 1024)

    def to_ray(self) -> dict[str, Any]:
        """Ray's words for the number of replicas."""
        if self.max_replicas is None:
            return {"num_replicas": self.replicas}
        return {
            "num_replicas": "auto",
            "autoscaling_config": {
                "min_replicas": self.replicas,
                "initial_replicas": self.replicas,
                "max_replicas": self.max_replicas,
                "target_ongoing_requests": self.target_ongoing,
            },
        }


def _check(what: str, value: int, least: int, most: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise SpecError(f"{what}: got {value!r}, expected {least} to {most}. Choose another.")
