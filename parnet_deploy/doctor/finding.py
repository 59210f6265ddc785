"""What ``doctor`` reports, one at a time."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

Status = Literal["ok", "absent", "missing", "warning"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was looked at; ``fix`` is what to do where it is not ok.

    "absent" is what nothing here needs, "missing" what some verb needs.
    """

    group: str
    name: str
    status: Status
    detail: str
    fix: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)
