"""The image sizes that a deployment accepts: one size (the default, fastest) or a range."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from operator import index
from typing import Any

from .errors import SpecError
from .spec import ModelSpec, check_keys


@dataclass(frozen=True, kw_only=True)
class InputSize:
    """Smallest and largest (height, width) in pixels; equal for a fixed size."""

    low: tuple[int, int]
    high: tuple[int, int]

    def __post_init__(self) -> None:
        if not all(1 <= low <= high for low, high in zip(self.low, self.high, strict=True)):
            raise SpecError(f"input size: got {self.low} to {self.high}, expected LOW <= HIGH.")

    @property
    def fixed(self) -> bool:
        """Whether only one size is accepted."""
        return self.low == self.high

    @property
    def corners(self) -> tuple[tuple[int, int], ...]:
        """Sizes to prove: the largest first; for a range also the smallest and a mixed one."""
        mixed = (self.low[0], self.high[1])
        return tuple(dict.fromkeys((self.high, self.low, mixed)))

    def __str__(self) -> str:
        low, high = (f"{height}x{width}" for height, width in (self.low, self.high))
        return low if self.fixed else f"{low}:{high}"

    def check(self, spec: ModelSpec, height: int, width: int) -> None:
        """Refuse an image size that this deployment of the network does not accept.

        Raises:
            SpecError: The size is outside the range or not a multiple of ``spec.size_multiple``.
        """
        inside = self.low[0] <= height <= self.high[0] and self.low[1] <= width <= self.high[1]
        if not inside:
            raise SpecError(
                f"input size: got {height}x{width}, expected {self}. Resize the image, or run: "
                f"parnet-deploy export --input-size {height}x{width}."
            )
        spec.check_size(height, width)

    @classmethod
    def parse(cls, text: str) -> InputSize:
        """Read ``224``, ``224x320`` (height x width) or a range ``192:256`` of either.

        Raises:
            SpecError: The text is none of these, or the range is empty.
        """
        ends = [_parse_one(part, text) for part in text.split(":")]
        if len(ends) > 2:
            raise SpecError(f"input size: got {text!r}, expected SIZE or LOW:HIGH.")
        return cls(low=ends[0], high=ends[-1])

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types; ``from_json`` reads it back."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> InputSize:
        """Inverse of ``to_json``.

        Raises:
            SpecError: A key is missing or not a pair of numbers.
        """
        try:
            check_keys(data, cls)
            (low_h, low_w), (high_h, high_w) = data["low"], data["high"]
            low, high = (index(low_h), index(low_w)), (index(high_h), index(high_w))
        except (KeyError, TypeError, ValueError) as error:
            raise SpecError(f"input size: cannot read it: {error!r}.") from error
        return cls(low=low, high=high)


def _parse_one(part: str, text: str) -> tuple[int, int]:
    numbers = part.lower().split("x")
    if len(numbers) > 2 or not all(re.fullmatch("[0-9]{1,6}", number) for number in numbers):
        raise SpecError(f"input size: got {text!r}, expected for example 224, 224x320 or 192:256.")
    return int(numbers[0]), int(numbers[-1])
