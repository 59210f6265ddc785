"""Health figures of fused weights: what float16 and INT8 will find hard, before they do.

Source: the project's own measurements on trained and stressed ParNets; per-channel range ratios
over 10 and float16 overflow are what went before a loss of accuracy there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from ..spec import BATCH_NORM_EPS
from .fuse import FusedNetwork, Tensors

FLOAT16_MAX = 65504.0
FLOAT16_NORMAL_MIN = 2.0**-14  # below: sub-normal, fewer bits
FLOAT16_MIN = 2.0**-25  # at or below: rounds to zero
RANGE_RATIO_WARNING = 10.0


@dataclass(frozen=True, kw_only=True)
class WeightHealth:
    """One fused weight tensor.

    ``range_ratio`` is the largest output channel's max |w| over the median one's, of the channels
    that are not all zero (1 if all are);
    ``kurtosis`` is 3 for a normal distribution; float16 figures count values.
    """

    name: str
    values: int
    max_abs: float
    max_over_std: float
    kurtosis: float
    range_ratio: float
    float16_overflow: int
    float16_subnormal: int
    float16_to_zero: int

    @property
    def warning(self) -> str | None:
        """What to watch, or nothing."""
        if self.float16_overflow:
            return f"{self.name}: {self.float16_overflow} values overflow float16"
        if self.range_ratio > RANGE_RATIO_WARNING:
            return f"{self.name}: channel range ratio {self.range_ratio:.1f} is hard for INT8"
        return None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {**asdict(self), "warning": self.warning}


@dataclass(frozen=True, kw_only=True)
class BatchNormHealth:
    """One BatchNorm of the training form: its largest gain |weight / std| and smallest variance."""

    name: str
    max_gain: float
    min_variance: float

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)


def measure_weights(network: FusedNetwork) -> Iterator[WeightHealth]:
    """Figures of every fused convolution, gate and classifier weight."""
    for name, tensor in network.tensors.items():
        if name.endswith(".weight") and not name.endswith("border.weight"):
            yield _measure(name, tensor)


def measure_batch_norms(state: Tensors) -> Iterator[BatchNormHealth]:
    """Figures of every BatchNorm of the training form."""
    for name, variance in state.items():
        if name.endswith(".running_var"):
            prefix = name.removesuffix(".running_var")
            gain = state[f"{prefix}.weight"].double() / (variance.double() + BATCH_NORM_EPS).sqrt()
            yield BatchNormHealth(
                name=prefix, max_gain=float(gain.abs().max()), min_variance=float(variance.min())
            )


def _measure(name: str, tensor: Tensor) -> WeightHealth:
    size = tensor.abs()
    power = tensor.to(torch.float64, copy=True)
    power -= power.mean()
    variance = float(power.square_().mean())
    fourth = float(power.square_().mean())
    channels = size.flatten(1).amax(1)  # (O,)
    alive = channels[channels > 0]
    largest = float(channels.max())
    return WeightHealth(
        name=name,
        values=tensor.numel(),
        max_abs=largest,
        max_over_std=largest / variance**0.5 if variance > 0 else 0.0,
        kurtosis=fourth / variance**2 if variance > 0 else 0.0,
        range_ratio=largest / float(alive.median()) if len(alive) else 1.0,
        float16_overflow=_count(size > FLOAT16_MAX),
        float16_subnormal=_count((size > FLOAT16_MIN) & (size < FLOAT16_NORMAL_MIN)),
        float16_to_zero=_count((size > 0) & (size <= FLOAT16_MIN)),
    )


def _count(mask: Tensor) -> int:
    return int(torch.count_nonzero(mask))
