"""From logits to the outputs that a request wants."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ...spec import LOGITS
from ..protocol.request import OutputTensor, WantedOutput
from ..protocol.wording import refuse

Logits = NDArray[np.float32]  # (N, K)


def make_output(
    wanted: WantedOutput, logits: Logits, labels: Sequence[str] | None = None
) -> OutputTensor:
    """The logits as values, or as the best classes.

    Shapes: (N, K), or (N, k) with k at most K.

    Raises:
        RefusedError: invalid: NaN or Inf among logits that are to be ranked.
    """
    if not wanted.classification:
        return OutputTensor(
            name=LOGITS, datatype="FP32", shape=logits.shape, data=logits, binary=wanted.binary
        )
    if not np.isfinite(logits).all():
        refuse(
            f"values of output '{LOGITS}'",
            got="NaN or Inf",
            expected="numbers that can be ranked",
            step="Look for NaN, Inf or huge values in the images that were sent",
        )
    count = min(wanted.classification, logits.shape[1])
    return OutputTensor(
        name=LOGITS,
        datatype="BYTES",
        shape=(logits.shape[0], count),
        data=[text for row in logits for text in best_classes(row, count, labels)],
        binary=wanted.binary,
    )


def best_classes(
    values: NDArray[np.float32], count: int, labels: Sequence[str] | None = None
) -> list[bytes]:
    """The largest values as "value:index", or "value:index:label", the best first.

    Equal values stand in the order of their index, NaN after all others.

    Source: the classification extension of the protocol; the value has six decimals, as in
    triton-inference-server/server ``src/classification.cc``.
    """
    best = np.argsort(-values, kind="stable")[:count].tolist()
    names = [f":{labels[k]}" for k in best] if labels is not None else [""] * len(best)
    return [f"{float(values[k]):f}:{k}{name}".encode() for k, name in zip(best, names, strict=True)]
