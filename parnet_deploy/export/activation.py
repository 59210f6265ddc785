"""Tell from the weights whether a ParNet was trained with SiLU or ReLU.

The released YAML files and the authors' code disagree (a nested list builds ReLU, a flat one
SiLU), so the configuration cannot be trusted. The weights can: the running mean of a stream's
identity BatchNorm is the mean of the previous block's activation, and a mean of ReLU outputs
cannot be negative.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from ..errors import CheckpointError
from ..spec import Activation

SILU_MINIMUM = -0.2785


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
    tensors: Mapping[str, Tensor], wanted: Activation | None, path: Path
) -> ActivationChoice:
    """Decide the activation from the identity BatchNorm means; ``wanted`` overrides.

    Raises:
        CheckpointError: The weights cannot tell (no stream blocks, or untouched statistics) and
            no activation was given.
    """
    means = [
        t
        for name, t in tensors.items()
        if name.startswith("streams.") and name.endswith("rbr_identity.running_mean")
    ]
    values = torch.cat(means) if means else torch.zeros(0)
    told, evidence = _read_evidence(values)
    if wanted is None and told is None:
        raise CheckpointError(
            f"checkpoint {path}: cannot tell the activation: {evidence}. "
            "Give it: --activation silu or --activation relu."
        )
    warnings = []
    if wanted is not None and told is not None and wanted != told:
        warnings.append(f"--activation {wanted} contradicts the weights: {evidence}.")
    if len(values) and float(values.min()) < SILU_MINIMUM:
        warnings.append(
            f"An identity BatchNorm has running mean {float(values.min()):.3f}, below SiLU's "
            f"minimum {SILU_MINIMUM}: these are not the statistics of a trained ParNet."
        )
    chosen = wanted or told
    assert chosen is not None  # the case of neither is refused above
    return ActivationChoice(
        activation=chosen,
        decided_by="option" if wanted else "weights",
        evidence=evidence,
        warning=" ".join(warnings) or None,
    )


def _read_evidence(means: Tensor) -> tuple[Activation | None, str]:
    if not len(means):
        return None, "no stream has a block with an identity branch"
    if not bool(means.any()):
        return None, f"all {len(means)} identity BatchNorm means are exactly 0 (never trained)"
    negative, lowest = int((means < 0).sum()), float(means.min())
    text = f"{negative} of {len(means)} identity BatchNorm means are negative, lowest {lowest:.4f}"
    return ("silu" if negative else "relu"), text
