"""Figures and names as people read them, the same in the page and on the terminal."""

from __future__ import annotations

import re
from collections.abc import Iterable

from ..result import OURS, YARDSTICK, Interval

DASH = "\N{EN DASH}"

_TITLES = {
    OURS: OURS,
    "torch": "eager PyTorch",
    "torch-compile": "compiled PyTorch",
    "onnxruntime": "unfused ONNX Runtime",
    "openvino": "OpenVINO",
    "mnn": "MNN",
    "ncnn": "ncnn",
    YARDSTICK: "the yardstick",
}
_RESNET = re.compile(r"resnet-?(\d+)$")


def arm_title(name: str) -> str:
    """What people call an arm."""
    resnet = _RESNET.match(name)
    return f"ResNet-{resnet[1]}" if resnet else _TITLES.get(name, name)


def is_resnet(name: str) -> bool:
    """Whether an arm answers "really faster than ResNet?"."""
    return _RESNET.match(name) is not None


def number_text(value: float) -> str:
    """Three digits that count, never in powers of ten."""
    size = abs(value)
    if not size:
        return "0"
    if size >= 10_000:
        return f"{value:,.0f}"
    digits = 3 if size < 1 else 2 if size < 10 else 1 if size < 100 else 0
    return f"{value:.{digits}f}"


def ms_text(value: float) -> str:
    """Milliseconds; of long times seconds, of short ones microseconds."""
    if value >= 10_000:
        return f"{number_text(value / 1000)} s"
    if 0 < abs(value) < 0.1:
        return f"{number_text(value * 1000)} us"
    return f"{number_text(value)} ms"


def share_text(share: float) -> str:
    """A share in percent, whole from 10 on."""
    percent = 100 * share
    if share and abs(percent) < 0.1:
        return "< 0.1 %" if share > 0 else "> -0.1 %"
    return f"{percent:.0f} %" if abs(percent) >= 9.95 or percent == 0 else f"{percent:.1f} %"


def exact_share_text(share: float) -> str:
    """A share in percent with two decimals, never rounded up to all of it."""
    percent = 100 * share
    return f"{min(percent, 99.99):.2f} %" if share < 1 else f"{percent:.0f} %"


def error_text(value: float) -> str:
    """A relative error or its limit: 2.6e-7, 1e-4, 0."""
    if not value:
        return "0"
    digits, _, power = f"{value:.1e}".partition("e")
    return f"{digits.removesuffix('.0')}e{int(power)}"


def mib_text(mib: float) -> str:
    """Mebibytes."""
    return f"{number_text(mib)} MiB"


def count_text(value: float) -> str:
    """A large number: 18.6 M, 3.48 G."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= size:
            return f"{number_text(value / size)} {unit}"
    return f"{value:g}"


def interval_text(found: Interval) -> str:
    """``53.7 (53.2 to 54.1)``."""
    return f"{number_text(found['value'])} {bounds_text(found)}"


def bounds_text(found: Interval) -> str:
    """``(53.2 to 54.1)``."""
    return f"({number_text(found['low'])} to {number_text(found['high'])})"


def ours_of_it(ratio_to_ours: Interval) -> Interval:
    """Our time in units of the arm's, where the report holds it the other way round."""
    return Interval(
        value=1 / ratio_to_ours["value"],
        low=1 / ratio_to_ours["high"],
        high=1 / ratio_to_ours["low"],
    )


def ratio_text(found: Interval) -> str:
    """``0.37 (0.36 to 0.38)``."""
    return f"{_ratio(found['value'])} ({_ratio(found['low'])} to {_ratio(found['high'])})"


def _ratio(value: float) -> str:
    return f"{value:.3f}" if value < 0.095 else f"{value:.2f}" if value < 9.95 else f"{value:.0f}"


def shortened(text: str, most: int = 36) -> str:
    """The end of a long text, which tells paths apart."""
    return text if len(text) <= most else f"\N{HORIZONTAL ELLIPSIS}{text[1 - most :]}"


def listed(items: Iterable[str]) -> str:
    """``a, b and c``."""
    found = list(items)
    if len(found) < 2:
        return "".join(found)
    return f"{', '.join(found[:-1])} and {found[-1]}"


def size_text(size: Iterable[int]) -> str:
    """``224x224``."""
    return "x".join(map(str, size))
