"""How requests are treated, whatever model they are for."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ...errors import SpecError


@dataclass(frozen=True, kw_only=True)
class ServiceOptions:
    """Limits of the service.

    ``max_queue``: images that wait for a model at most, running ones apart. ``max_delay_ms``: how
    long a request may wait for others to share its batch; 0: a batch is what waits anyway.
    ``deadline_s``: how long a request may take, if it does not say less itself. ``decoders``:
    threads that decode images. ``max_image_bytes``: largest encoded image.
    ``max_image_pixels``: most pixels of one; it is refused before it is decoded. ``prove_every_s``:
    how often each model must prove that it still answers its canary rightly; 0: never again.
    """

    max_queue: int = 64
    max_delay_ms: float = 0.0
    deadline_s: float = 10.0
    decoders: int = 2
    max_image_bytes: int = 16 * 2**20
    max_image_pixels: int = 24_000_000
    prove_every_s: float = 0.0

    def __post_init__(self) -> None:
        _check("max_queue", self.max_queue, 0, 1_000_000)
        _check("max_delay_ms", self.max_delay_ms, 0, 60_000)
        _check("deadline_s", self.deadline_s, 0.001, 86_400)
        if self.max_delay_ms >= self.deadline_s * 1e3:
            raise SpecError(
                f"max_delay_ms: got {self.max_delay_ms:g}, expected less than the deadline, "
                f"{self.deadline_s * 1e3:g} ms. Let batches wait for less time."
            )
        _check("decoders", self.decoders, 1, 256)
        _check("max_image_bytes", self.max_image_bytes, 1, 2**30)
        _check("max_image_pixels", self.max_image_pixels, 1, 2**31)
        _check("prove_every_s", self.prove_every_s, 0, 86_400)


def _check(name: str, value: float, low: float, high: float) -> None:
    if not math.isfinite(value) or not low <= value <= high:
        raise SpecError(f"{name}: got {value}, expected {low} to {high}. Correct the option.")
