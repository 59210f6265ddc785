"""How colours are seen: contrast, and what the colour-blind make of them."""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

Colour = NDArray[np.float64]

# Machado, Oliveira and Fernandes, "A Physiologically-based Model for Simulation of Color Vision
# Deficiency", 2009, severity 1.0; on linear RGB.
SIGHT = {
    "usual": np.eye(3),
    "protanopia": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "deuteranopia": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
    "tritanopia": np.array(
        [
            [1.255528, -0.076749, -0.178779],
            [-0.078411, 0.930809, 0.147602],
            [0.004733, 0.691367, 0.303900],
        ]
    ),
}
_TO_XYZ = np.array(
    [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.1191920, 0.9503041],
    ]
)


def read_schemes(css: str) -> dict[str, dict[str, str]]:
    """The custom properties of both colour schemes; dark inherits what it does not set."""
    blocks = re.findall(r":root \{(.*?)\}", css, re.DOTALL)
    light, dark = (dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", b)) for b in blocks[:2])
    return {"light": light, "dark": {**light, **dark}}


def linear(colour: str) -> Colour:
    values = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def contrast(one: str, other: str) -> float:
    """WCAG 2: from 1 to 21; text needs 4.5, drawings 3."""
    found = sorted(float(_TO_XYZ[1] @ linear(c)) + 0.05 for c in (one, other))
    return found[1] / found[0]


def difference(one: str, other: str, sight: str) -> float:
    """CIE76 difference as seen with this sight; about 2 can just be noticed."""
    first, second = (_lab(np.clip(SIGHT[sight] @ linear(c), 0, 1)) for c in (one, other))
    return float(np.linalg.norm(first - second))


def _lab(rgb: Colour) -> Colour:
    light = _TO_XYZ @ rgb / np.array([0.95047, 1.0, 1.08883])
    x, y, z = np.where(light > 0.008856, np.cbrt(light), 7.787 * light + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])
