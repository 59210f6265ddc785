"""Tell from the weights whether a ParNet was trained with SiLU or ReLU.

The released YAML files and the authors' code disagree (a nested list builds ReLU, a flat one
SiLU), so the configuration cannot be trusted. The weights can. The running mean of a stream's
identity BatchNorm is the mean of the previous block's activation output, and

- a mean of ReLU outputs cannot be negative: one negative mean proves SiLU;
- means that are all positive prove nothing, but the previous block's BatchNorms also tell mean and
  variance of what went into the activation. The mean of either activation over a Gaussian with
  these can be computed, and the recorded mean is close to only one of them.

On digits models the second kind of evidence was clear for all of 3 SiLU and 2 ReLU trainings: the
right activation was closer for 78 to 91 % of the channels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 (the field's standard name)
from torch import Tensor

from ..errors import CheckpointError
from ..spec import Activation, ModelSpec

SILU_MINIMUM = -0.2785
CLEAR_SHARE = 0.6  # of the channels must be closer to one activation
_NODES = 64  # of the Gauss-Hermite quadrature


@dataclass(frozen=True, kw_only=True)
class ActivationChoice:
    """The activation that will be used, who decided it and what the weights say."""

    activation: Activation
    decided_by: Literal["weights", "option"]
    evidence: str
    warning: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types, for the manifest and the reports."""
        return asdict(self)


def choose_activation(
    tensors: Mapping[str, Tensor], spec: ModelSpec, wanted: Activation | None, path: Path
) -> ActivationChoice:
    """Decide the activation from the identity BatchNorm means; ``wanted`` overrides.

    Raises:
        CheckpointError: The weights cannot tell and no activation was given.
    """
    told, evidence = _read_evidence(tensors, spec)
    chosen = wanted or told
    if chosen is None:
        raise CheckpointError(
            f"checkpoint {path}: cannot tell the activation: {evidence}. "
            "Give it: --activation silu or --activation relu."
        )
    warnings = []
    if told is not None and chosen != told:
        warnings.append(f"--activation {chosen} contradicts the weights: {evidence}.")
    lowest = min((float(mean.min()) for _, mean in _identity_means(tensors, spec)), default=0.0)
    if lowest < SILU_MINIMUM:
        warnings.append(
            f"An identity BatchNorm has running mean {lowest:.3f}, below SiLU's minimum "
            f"{SILU_MINIMUM}: these are not the statistics of a trained ParNet."
        )
    return ActivationChoice(
        activation=chosen,
        decided_by="option" if wanted else "weights",
        evidence=evidence,
        warning=" ".join(warnings) or None,
    )


def _read_evidence(tensors: Mapping[str, Tensor], spec: ModelSpec) -> tuple[Activation | None, str]:
    found = list(_identity_means(tensors, spec))
    if not found:
        return None, "no stream has a block with an identity branch"
    means = torch.cat([mean for _, mean in found])
    if not bool(means.any()):
        return None, f"all {len(means)} identity BatchNorm means are exactly 0 (never trained)"
    negative = int((means < 0).sum())
    if negative:
        text = f"{negative} of {len(means)} identity BatchNorm means are negative"
        return "silu", f"{text} (lowest {float(means.min()):.4f}), which ReLU cannot give"
    silu, relu = (
        torch.cat([_expected_mean(tensors, spec, before, act) for before, _ in found])
        for act in (F.silu, F.relu)
    )
    share = float(((means - silu).abs() < (means - relu).abs()).double().mean())
    text = f"SiLU explains {share:.0%} of {len(means)} identity BatchNorm means better than ReLU"
    if max(share, 1 - share) < CLEAR_SHARE:
        return None, text
    return ("silu" if share > 0.5 else "relu"), text


def _identity_means(tensors: Mapping[str, Tensor], spec: ModelSpec) -> Iterator[tuple[str, Tensor]]:
    """Each identity BatchNorm's mean with the name of the block whose output it is the mean of."""
    for part in spec.parts:
        if part.name.startswith("stream") and part.blocks:
            number = part.name.removeprefix("stream")
            before = "inits.0.1" if number == "0" else f"inits.{number}"
            for block in part.blocks:
                yield before, tensors[f"{block.name}.block.rbr_identity.running_mean"].double()
                before = block.name


def _expected_mean(
    tensors: Mapping[str, Tensor], spec: ModelSpec, name: str, activation: Any
) -> Tensor:
    """Mean of a block's output if what goes into its activation is Gaussian, (C,).

    In training each branch has mean beta and variance gamma squared, whatever its input. The
    branches are taken as independent, and the gate as constant (1 for the doubled one).
    """
    prefix = f"{name}.block"
    block = next(block for block in spec.blocks if block.name == name)
    point = "rbr_1x1.1.bn" if block.stride == 2 else "rbr_1x1.bn"
    mean = torch.zeros(block.out_channels, dtype=torch.float64)
    variance = torch.zeros_like(mean)
    for branch in ("rbr_dense.bn", point):
        mean = mean + tensors[f"{prefix}.{branch}.bias"]
        variance = variance + tensors[f"{prefix}.{branch}.weight"].double().square()
    if block.kind == "residual":
        shift = tensors[f"{prefix}.rbr_identity.bias"].double()
        scale = tensors[f"{prefix}.rbr_identity.weight"].double()
        weight = tensors[f"{prefix}.se.cvsig.conv.weight"].flatten(1).double()
        gate = (weight @ shift).sigmoid()
        mean, variance = mean + gate * shift, variance + (gate * scale).square()
    nodes, weights = (torch.from_numpy(a) for a in np.polynomial.hermite_e.hermegauss(_NODES))
    values = activation(mean[:, None] + variance.sqrt()[:, None] * nodes)  # (C, nodes)
    expected: Tensor = values @ (weights / weights.sum())
    return expected
