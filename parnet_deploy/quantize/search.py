"""Which layers go back to float32 until the gates pass: one by one, the most harmful first.

Harm is what a layer alone does to the logits, for the speed it brings: noise power for each
multiply-accumulate in low precision. Layers of all streams compete under the one budget, so a
stream that is sensitive may end up in another precision than one that costs more.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import CheckFailedError
from .convert import Layer
from .gates import Check, Measured
from .search_log import SearchLog

MIN_SHARE = 0.5
"""Of the multiply-accumulates: with fewer in low precision the speed is gone."""
SMALL_HARM = 0.01  # of all noise: such a layer is not worth a step of its own

Evaluate = Callable[[Collection[str]], Measured]
Judge = Callable[[Measured], tuple[Check, ...]]
Tell = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Found:
    """What the search ended with: layers kept in float32, what was measured, every step."""

    keep: tuple[str, ...]
    measured: Measured
    checks: tuple[Check, ...]
    sensitivity: Mapping[str, float]
    steps: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Search:
    """Everything that a search needs; ``run`` does it.

    Args:
        layers: All layers in order.
        fixed: Layers that must stay in float32 anyway.
        evaluate: Scores the network with some layers in float32.
        judge: Applies the gates.
        sensitivity: Measures the layers that are not in what is known yet.
        log: Where progress is kept, to go on after an interruption.
        min_share: Where the search gives up.
        least: What must be in low precision from the start.
        tell: Called with a line about each step.
    """

    layers: tuple[Layer, ...]
    fixed: Collection[str]
    evaluate: Evaluate
    judge: Judge
    sensitivity: Callable[[SearchLog], dict[str, float]]
    log: SearchLog
    min_share: float = MIN_SHARE
    least: float = MIN_SHARE
    tell: Tell = lambda text: None

    def run(self) -> Found:
        """Put layers back until the gates pass.

        Raises:
            CheckFailedError: They do not pass while it is still worth it.
        """
        keep = [layer.name for layer in self.layers if layer.name in self.fixed]
        if share(self.layers, keep) < self.least:
            raise self._given_up(["so many layers do not fit it, or were kept out of it"], keep)
        found, failed = self._try(keep)
        if found is not None:
            return found
        self.tell("measuring how sensitive each layer is")
        order = rank(self.layers, self.sensitivity(self.log))
        remaining = [layer for layer in order if layer.name not in keep]
        while found is None:
            following = [remaining.pop(0).name] if remaining else []
            if not following or share(self.layers, [*keep, *following]) < self.min_share:
                raise self._given_up(failed, keep)
            keep = [*keep, *following]
            found, failed = self._try(keep)
        return found

    def _try(self, keep: Sequence[str]) -> tuple[Found | None, Sequence[str]]:
        """Evaluate, unless an interrupted search knows that it fails; what failed."""
        failed = self.log.failed(keep)
        if failed is not None:
            self._tell(keep, f"known to fail from an earlier run ({failed[0]})")
            return None, failed
        measured = self.evaluate(keep)
        checks = self.judge(measured)
        failed = [str(check) for check in checks if not check]
        self.log.add_step(
            keep=list(keep),
            failed=failed,
            share=share(self.layers, keep),
            sqnr_db={name: found.sqnr_db for name, found in measured.served.items()},
        )
        self._tell(keep, failed[0] if failed else "passed")
        if failed:
            return None, failed
        found = Found(
            keep=tuple(keep),
            measured=measured,
            checks=checks,
            sensitivity=dict(self.log.sensitivity),
            steps=tuple(self.log.steps),
        )
        return found, failed

    def _tell(self, keep: Sequence[str], text: str) -> None:
        back = f"{_count(keep)} in float32" if keep else "every layer in low precision"
        self.tell(f"{back}: {text}")

    def _given_up(self, failed: Sequence[str], keep: Sequence[str]) -> CheckFailedError:
        left = share(self.layers, keep)
        return CheckFailedError(
            f"precision search: with {_count(keep)} back in float32 and {left:.0%} of the "
            f"work in low precision (at least {self.min_share:.0%} must stay): "
            f"{'; '.join(failed)}. It was not published. Calibrate on images of the kind that "
            "the network will see, or change the limits: parnet-deploy calibrate --help."
        )


def _count(keep: Sequence[str]) -> str:
    return f"{len(keep)} layer{'' if len(keep) == 1 else 's'}"


def share(layers: Sequence[Layer], keep: Collection[str]) -> float:
    """Share of the multiply-accumulates that are not in the kept layers."""
    total = sum(layer.macs for layer in layers)
    return sum(layer.macs for layer in layers if layer.name not in keep) / total


def rank(layers: Sequence[Layer], sensitivity_db: Mapping[str, float]) -> list[Layer]:
    """Layers by harm for their cost, the worst first; those with little harm last."""
    noise = {layer.name: 10 ** (-sensitivity_db[layer.name] / 10) for layer in layers}
    total = sum(noise.values())

    def order(layer: Layer) -> tuple[bool, float]:
        return noise[layer.name] < SMALL_HARM * total, -noise[layer.name] / max(layer.macs, 1)

    return sorted(layers, key=order)
