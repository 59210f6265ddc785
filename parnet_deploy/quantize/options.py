"""What a user may choose of a precision, and where its files are in a deployment."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..errors import SpecError
from .convert import check_target
from .gates import FLOAT16_GATES, Gates
from .search import MIN_SHARE


@dataclass(frozen=True, kw_only=True)
class QuantizeOptions:
    """What the user may choose.

    ``gates`` None: the target's own. ``search``: put layers back if a gate fails; otherwise fail
    at once. ``min_share`` of the work must stay in low precision. ``keep``: layers that stay in
    float32 in any case. ``weight_limit`` None: what this processor's kernels can take, for the CPU.
    """

    target: str = "int8-cpu"
    gates: Gates | None = None
    search: bool = True
    min_share: float = MIN_SHARE
    keep: tuple[str, ...] = field(default=())
    weight_limit: int | None = None

    def __post_init__(self) -> None:
        check_target(self.target)
        if not 0 < self.min_share <= 1:
            raise SpecError(f"min share: got {self.min_share}, expected more than 0, at most 1.")
        if self.weight_limit is not None and not 1 <= self.weight_limit <= 127:
            raise SpecError(f"weight limit: got {self.weight_limit}, expected 1 to 127.")

    @property
    def limits(self) -> Gates:
        """The gates that apply."""
        default = FLOAT16_GATES if self.target == "fp16" else Gates()
        return self.gates or default


def folder(target: str) -> str:
    """Where the target's graphs are in a deployment."""
    return f"onnx-{check_target(target)}"


def report_name(target: str, kind: str = "json") -> str:
    """The target's report, ``json`` or ``html``."""
    return f"reports/precision-{check_target(target)}.{kind}"
