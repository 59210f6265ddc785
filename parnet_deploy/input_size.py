"""The image sizes that a deployment accepts: one size (the default, fastest) or a range."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from .errors import SpecError
from .spec import ModelSpec


@dataclass(frozen=True, kw_only=True)
class InputSize:
    """Smallest and largest (height, width) in pixels; equal for a fixed size."""

    low: tuple[int, int]
    high: tuple[int, int]

    @property
    def fixed(self) -> bool:
        """Whether only one size is accepted."""
        return self.low == self.high

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
        if len(ends) > 2 or any(a > b for a, b in zip(ends[0], ends[-1], strict=True)):
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
            (low_h, low_w), (high_h, high_w) = data["low"], data["high"]
            return cls(low=(int(low_h), int(low_w)), high=(int(high_h), int(high_w)))
        except (KeyError, TypeError, ValueError) as error:
            raise SpecError(f"input size: cannot read it: {error!r}.") from error


def _parse_one(part: str, text: str) -> tuple[int, int]:
    numbers = part.lower().split("x")
    if len(numbers) > 2 or not all(number.isascii() and number.isdigit() for number in numbers):
        raise SpecError(f"input size: got {text!r}, expected for example 224, 224x320 or 192:256.")
    return int(numbers[0]), int(numbers[-1])
