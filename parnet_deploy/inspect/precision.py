"""In which precision each layer of a plan is, as the report of its graphs says.

A plan in float32 has nothing to tell. The report describes the graphs; what TensorRT made of them
is counted with its engines. A plan in bfloat16 has the graphs of float32, which no report
describes: its backend rounds the products.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ..deployment import Deployment
from ..reading import number, read_json, rows

FLOAT32, BFLOAT16 = "fp32", "bf16"


@dataclass(frozen=True, kw_only=True)
class LayerPrecision:
    """One layer. ``reason`` says why it stayed in float32, None for those that did not."""

    layer: str
    part: str
    precision: str
    macs: int | None
    reason: str | None


@dataclass(frozen=True, kw_only=True)
class PlanPrecision:
    """The layers of a plan in lower precision; none if there is no report of its graphs.

    ``target`` names the graphs: fp16, int8-cpu, int8-trt, or fp32 for a plan in bfloat16.
    ``low_share`` is the share of the multiply-accumulates that are in lower precision.
    """

    precision: str
    target: str | None
    low_share: float | None
    layers: tuple[LayerPrecision, ...]

    @property
    def counts(self) -> Mapping[str, int]:
        """Number of layers by precision."""
        return dict(sorted(Counter(layer.precision for layer in self.layers).items()))

    @property
    def kept(self) -> tuple[str, ...]:
        """Names of the layers that are in float32."""
        return tuple(layer.layer for layer in self.layers if layer.precision == FLOAT32)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {**asdict(self), "layers": list(map(asdict, self.layers)), "counts": self.counts}


def find_precision(deployment: Deployment, key: str) -> PlanPrecision | None:
    """What is known of the layers of a plan; None for a plan in float32.

    Args:
        deployment: Opened.
        key: One of its plans.
    """
    plan = deployment.plans[key]
    precision = plan.get("precision", FLOAT32)
    if precision == FLOAT32:
        return None
    if precision == BFLOAT16:
        return PlanPrecision(precision=precision, target=FLOAT32, low_share=None, layers=())
    target = _target(deployment, str(plan["step"]), precision)
    report = {} if target is None else read_json(deployment, f"reports/precision-{target}.json")
    layers = tuple(
        LayerPrecision(
            layer=str(row.get("layer")),
            part=str(row.get("part")),
            precision=str(row.get("precision")),
            macs=row["macs"] if type(row.get("macs")) is int else None,
            reason=None if row.get("reason") is None else str(row["reason"]),
        )
        for row in rows(report, "layers")
    )
    share = number(report, "low_share")
    return PlanPrecision(precision=precision, target=target, low_share=share, layers=layers)


def _target(deployment: Deployment, step: str, precision: str) -> str | None:
    """The graphs that the build took: of those that it chose from, the ones of its precision."""
    sources = deployment.steps[step]["made_from"]
    targets = (name.partition(":")[2] for name in sources if name.startswith("quantize:"))
    return next((name for name in targets if name.partition("-")[0] == precision), None)
