"""What comes before a call: a photograph is decoded, resized and normalised."""

from __future__ import annotations

import io
from statistics import median

import numpy as np
from numpy.typing import NDArray

from ...deployment import Deployment
from ...errors import ParnetDeployError
from ...measure import time_ms
from ...preprocess import Preprocessing, load_image
from ..result import SplitRow

PHOTO = (640, 480)  # width, height of the JPEG that is prepared, as of a common camera
WARM_UP, CALLS = 2, 15


def preprocess_row(deployment: Deployment) -> SplitRow | None:
    """Time the deployment's own preprocessing; None without any, or without Pillow."""
    if deployment.preprocessing is None:
        return None
    try:
        from PIL import Image

        preprocessing = Preprocessing.from_json(deployment.preprocessing)
        file = io.BytesIO()
        Image.fromarray(_photo()).save(file, format="JPEG", quality=90)
        photo = file.getvalue()
        samples = [
            time_ms(lambda: load_image(photo, preprocessing)) for _ in range(WARM_UP + CALLS)
        ]
    except (ImportError, ParnetDeployError):
        return None
    how = f"decode, resize and normalise a JPEG of {PHOTO[0]}x{PHOTO[1]}, one thread; not in a call"
    return SplitRow(stage="preprocess", ms=median(samples[WARM_UP:]), how=how)


def _photo() -> NDArray[np.uint8]:
    """Smooth colours with some grain, for a JPEG of ordinary size."""
    width, height = PHOTO
    y, x = np.mgrid[0:height, 0:width]
    waves = np.stack([np.sin(x / 40 + k) * np.cos(y / 50 - k) for k in range(3)], axis=-1)
    grain = np.random.default_rng(0).normal(0, 6, waves.shape)
    pixels: NDArray[np.uint8] = np.clip(128 + 90 * waves + grain, 0, 255).astype(np.uint8)
    return pixels
