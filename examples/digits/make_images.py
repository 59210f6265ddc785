"""Write scikit-learn's handwritten digits as real PNG files, the same bytes on any machine.

    python examples/digits/make_images.py [--out calibration/digits]

eval/         the 450 held-out images of the split that train.py uses
noisy/        each of them three times with noise: harder, so that damage to the network shows
calibration/  256 of the training images, for choosing quantization ranges
"""

from __future__ import annotations

import argparse
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.progress import track
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

MEAN, STD = 0.3, 0.35  # of the pixels in 0..1; the network's normalisation
NOISE_SIGMA = 0.45  # in normalised units, on the 8x8 grid
NOISE_REPEATS = 3
CALIBRATION_IMAGES = 256
DEFAULT_OUT = Path(__file__).resolve().parents[2] / "calibration" / "digits"

Pixels = NDArray[np.uint8]


def load_pixels() -> tuple[Pixels, NDArray[np.int64]]:
    """All 1797 images as 8-bit grey (N, 8, 8), from the data set's 0..16, and their digits (N,)."""
    digits = load_digits()
    pixels = np.round(digits.images * (255 / 16)).astype(np.uint8)
    return pixels, digits.target.astype(np.int64)


def split(targets: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices of the 1347 training and the 450 held-out images, each digit in proportion."""
    train, held_out = train_test_split(
        np.arange(len(targets)), test_size=0.25, random_state=0, stratify=targets
    )
    return np.sort(train), np.sort(held_out)


def add_noise(pixels: Pixels, random: np.random.RandomState) -> Pixels:
    """Add Gaussian noise of ``NOISE_SIGMA`` and clip to what a picture can hold."""
    noise = random.standard_normal(pixels.shape) * (NOISE_SIGMA * STD * 255)
    return np.clip(np.round(pixels + noise), 0, 255).astype(np.uint8)


def encode_png(pixels: Pixels) -> bytes:
    """Encode 8-bit grey (H, W) as PNG.

    Written here and stored, not compressed: 64 noisy pixels do not get smaller, and compressors
    of different machines give different bytes.
    """
    height, width = pixels.shape
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)  # 0: the row is not filtered
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)  # 8 bits, grey
    chunks = (b"IHDR" + header, b"IDAT" + zlib.compress(rows, 0), b"IEND")
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
        for chunk in chunks
    )


def make_images() -> dict[str, bytes]:
    """Every file of the data set: its path below ``calibration/digits`` and its bytes."""
    pixels, targets = load_pixels()
    train, held_out = split(targets)
    files = {f"eval/{targets[i]}/{i:04d}.png": encode_png(pixels[i]) for i in held_out}
    random = np.random.RandomState(0)  # its stream is frozen, unlike default_rng's
    for repeat in range(NOISE_REPEATS):
        noisy = add_noise(pixels[held_out], random)
        for i, image in zip(held_out, noisy, strict=True):
            files[f"noisy/{targets[i]}/{i:04d}-{repeat}.png"] = encode_png(image)
    chosen, _ = train_test_split(
        train, train_size=CALIBRATION_IMAGES, random_state=0, stratify=targets[train]
    )
    for i in np.sort(chosen):
        files[f"calibration/{targets[i]}/{i:04d}.png"] = encode_png(pixels[i])
    return files


def main() -> None:
    """Replace the images in eval/, noisy/ and calibration/ below ``--out``."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT, help="default: %(default)s")
    out: Path = parser.parse_args().out
    files = make_images()
    for name in sorted({path.split("/")[0] for path in files}):
        for old in out.glob(f"{name}/[0-9]/*.png"):
            old.unlink()
    for path, content in track(files.items(), "Writing images", total=len(files)):
        file = out / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    print(f"{len(files)} images, {sum(map(len, files.values()))} bytes, in {out}")


if __name__ == "__main__":
    main()
