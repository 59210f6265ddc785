"""What a network in lower precision must keep to be published.

The limits are those that separated good from damaged configurations in the project's own
experiments: on two trained ParNets every good one lost at most 1 point on clean images with 24 dB
or more, and every kernel that saturated had 20 dB or fewer, sometimes with no accuracy lost at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from ..errors import CheckFailedError, SpecError
from .metrics import Score

CLEAN, NOISY = "clean", "noisy"
MAX_LIMIT = 1e6
MIN_LOST_IMAGES = 2  # on small sets a point is less than an image or two


@dataclass(frozen=True, kw_only=True)
class Gates:
    """Limits. Points are percentage points of top-1 accuracy; shares are 0 to 1; decibels of SQNR.

    ``max_kernel_gap_db`` and ``min_kernel_agreement`` compare the integer kernels with the
    emulation of the same graph: a gap means that the kernels saturate on this processor.
    ``max_clipped`` is the largest share of all values on held-out images that the ranges may cut
    off: more means that calibration saw images of another kind.

    ``exact`` names limits that hold as they are. The others allow for small sets: two images may
    always be lost, or answered otherwise.
    """

    max_drop_points: float = 1.0
    max_noisy_drop_points: float = 1.5
    min_sqnr_db: float = 20.0
    min_noisy_sqnr_db: float = 15.0
    min_agreement: float = 0.97
    min_noisy_agreement: float = 0.97
    max_kernel_gap_db: float = 3.0
    min_kernel_agreement: float = 0.995
    max_clipped: float = 0.02
    exact: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        for name in LIMITS:
            value = getattr(self, name)
            low, high = _RANGES.get(name, (-MAX_LIMIT, MAX_LIMIT))
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not low <= value <= high:  # NaN is no limit either
                expected = f"{low:g} to {high:g}" if name in _RANGES else "a number"
                raise SpecError(f"gate {name}: got {value!r}, expected {expected}.")

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {**asdict(self), "exact": list(self.exact)}

    def few(self, name: str, images: int) -> float:
        """The share of a set that may always differ, whatever the limit of this name says."""
        return 0.0 if name in self.exact else MIN_LOST_IMAGES / images


LIMITS = tuple(item.name for item in fields(Gates) if item.name != "exact")
_SHARES = ("min_agreement", "min_noisy_agreement", "min_kernel_agreement", "max_clipped")
_POINTS = ("max_drop_points", "max_noisy_drop_points")
_RANGES = {name: (0.0, 1.0) for name in _SHARES} | {name: (0.0, 100.0) for name in _POINTS}


FLOAT16_GATES = Gates(min_sqnr_db=40.0, min_noisy_sqnr_db=35.0, min_agreement=0.99)


@dataclass(frozen=True, kw_only=True)
class Check:
    """One comparison with a limit; true if it passed."""

    name: str
    got: float
    limit: float
    at_least: bool
    unit: str

    def __bool__(self) -> bool:
        return self.got >= self.limit if self.at_least else self.got <= self.limit

    def __str__(self) -> str:
        word = "at least" if self.at_least else "at most"
        return f"{self.name}: got {self._text(self.got)}, expected {word} {self._text(self.limit)}"

    def _text(self, value: float) -> str:
        if self.unit == "share":
            return f"{100 * value:.2f} %"
        return f"{value:.2f} {self.unit}"

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types, with the verdict."""
        return {**asdict(self), "passed": bool(self), "text": str(self)}


@dataclass(frozen=True, kw_only=True)
class Gap:
    """What the kernels lose against the emulation of the same graph, on the same images."""

    images: int
    agreement: float
    lost_db: float


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Scores by set. ``kernel`` is what engines on this machine give, None where there are none.

    Where there are kernels, the emulation is scored on fewer images: it is slow, and only compared
    with them, which is what ``gap`` says.
    """

    emulated: Mapping[str, Score]
    kernel: Mapping[str, Score] | None
    gap: Mapping[str, Gap] | None
    clipped: float

    @property
    def served(self) -> Mapping[str, Score]:
        """The scores that count: the kernel's, or the emulation's where there is no kernel."""
        return self.emulated if self.kernel is None else self.kernel

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "emulated": _plain(self.emulated),
            "kernel": None if self.kernel is None else _plain(self.kernel),
            "gap": self.gap and {name: asdict(found) for name, found in self.gap.items()},
            "clipped": self.clipped,
        }


def _plain(scores: Mapping[str, Score]) -> dict[str, Any]:
    return {name: found.to_json() for name, found in scores.items()}


def check_gates(measured: Measured, gates: Gates) -> tuple[Check, ...]:
    """Every gate that applies: those of accuracy need labels, the kernel's a kernel."""
    checks = []
    for name, found in measured.served.items():
        noisy = name == NOISY
        if not found.finite:
            checks.append(_most(f"{name} logits that are NaN or Inf", 1, 0, "or more"))
        drop = found.drop_points
        if drop is not None:
            which = "max_noisy_drop_points" if noisy else "max_drop_points"
            limit = max(getattr(gates, which), 100 * gates.few(which, found.images))
            checks.append(_most(f"{name} accuracy drop", drop, limit, "points"))
        which = "min_noisy_agreement" if noisy else "min_agreement"
        low = min(getattr(gates, which), 1 - gates.few(which, found.images))
        checks.append(_least(f"{name} agreement", found.agreement, low, "share"))
        low = gates.min_noisy_sqnr_db if noisy else gates.min_sqnr_db
        checks.append(_least(f"{name} logit SQNR", found.sqnr_db, low, "dB"))
    for name, gap in (measured.gap or {}).items():
        what = f"{name} SQNR lost by the kernels (saturation)"
        checks.append(_most(what, gap.lost_db, gates.max_kernel_gap_db, "dB"))
        what = f"{name} agreement of kernels and emulation"
        checks.append(_least(what, gap.agreement, gates.min_kernel_agreement, "share"))
    return (*checks, check_clipped(measured.clipped, gates))


def check_clipped(clipped: float, gates: Gates) -> Check:
    """The gate that no layer in float32 can help: the calibration saw images of another kind."""
    what = "values clipped on held-out images"
    return _most(what, clipped, gates.max_clipped, "share")


def require(checks: tuple[Check, ...], what: str) -> None:
    """Raise if a check did not pass.

    Raises:
        CheckFailedError: With every failed one.
    """
    failed = [str(check) for check in checks if not check]
    if failed:
        raise CheckFailedError(
            f"{what}: {'; '.join(failed)}. It was not published. Calibrate on images of the kind "
            "that the network will see, or change the limits: parnet-deploy calibrate --help."
        )


def _most(name: str, got: float, limit: float, unit: str) -> Check:
    return Check(name=name, got=got, limit=limit, at_least=False, unit=unit)


def _least(name: str, got: float, limit: float, unit: str) -> Check:
    return Check(name=name, got=got, limit=limit, at_least=True, unit=unit)
