"""From an image file to network input.

The same steps in the same order as the evaluation that the published accuracy comes from: RGB,
resize and centre crop on 8-bit pixels, divide by 255, normalise in float32. Pixels and crops equal
those of timm 0.4.12 with torchvision on a square input. One thing is ours: a photo is turned
upright by its EXIF orientation. ``image_files`` does the reading.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from .errors import InputError, MissingExtraError, SpecError
from .image_files import check_pixel_count, find_images, image_name, read_labels, read_rgb

if TYPE_CHECKING:
    from PIL import Image

__all__ = [
    "INTERPOLATIONS",
    "RESIZES",
    "Interpolation",
    "Preprocessing",
    "Resize",
    "find_images",
    "load_image",
    "prepare_pixels",
    "read_labels",
]

Resize = Literal["shortest-edge", "stretch"]
Interpolation = Literal["nearest", "bilinear", "bicubic"]

RESIZES: tuple[Resize, ...] = ("shortest-edge", "stretch")
INTERPOLATIONS: tuple[Interpolation, ...] = ("nearest", "bilinear", "bicubic")

_MAX_SIDE = 8192


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """How an image becomes the network's input. The default is the authors' evaluation at 224.

    The image is scaled to the input size divided by ``crop_fraction``, and the middle is cut out.
    ``resize`` says how it is scaled: "shortest-edge" keeps its shape, just large enough to cover;
    "stretch" does not keep it. ``mean`` and ``std`` are per RGB channel, for pixels in 0..1.

    Source: imankgoyal/NonDeepNetworks ``imagenet/timm/data/transforms_factory.py`` at ef68367
    (``transforms_imagenet_eval``); its network has no ``default_cfg``, so timm's bicubic stands.
    """

    height: int = 224
    width: int = 224
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    resize: Resize = "shortest-edge"
    crop_fraction: float = 0.875
    interpolation: Interpolation = "bicubic"

    def __post_init__(self) -> None:
        for name in ("height", "width"):
            side = getattr(self, name)
            if not isinstance(side, int) or isinstance(side, bool) or not 1 <= side <= _MAX_SIDE:
                raise _refused(name, side, f"a whole number from 1 to {_MAX_SIDE}")
        for name in ("mean", "std"):
            values = getattr(self, name)
            if not isinstance(values, tuple) or len(values) != 3 or not all(map(_finite, values)):
                raise _refused(name, values, "three finite numbers")
        if min(self.std) < 1e-6:
            raise _refused("std", self.std, "three numbers of at least 1e-6")
        if not _finite(self.crop_fraction) or not 0.1 <= self.crop_fraction <= 1:
            raise _refused("crop_fraction", self.crop_fraction, "a number from 0.1 to 1")
        if self.resize not in RESIZES:
            raise _refused("resize", self.resize, " or ".join(RESIZES))
        if self.interpolation not in INTERPOLATIONS:
            raise _refused("interpolation", self.interpolation, " or ".join(INTERPOLATIONS))

    def scaled_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width to which an image of this size is scaled before the crop."""
        least_height = math.floor(self.height / self.crop_fraction)
        least_width = math.floor(self.width / self.crop_fraction)
        if self.resize == "stretch":
            return least_height, least_width
        if least_width * height >= least_height * width:  # the width decides
            return least_width * height // width, least_width
        return least_height, least_height * width // height

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types; ``from_json`` reads it back."""
        return asdict(self) | {"mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Preprocessing:
        """Inverse of ``to_json``.

        Raises:
            SpecError: A key is missing or unknown, or a value cannot be.
        """
        expected = {field.name for field in fields(cls)}
        if not isinstance(data, Mapping) or set(data) != expected:
            got = sorted(map(str, data)) if isinstance(data, Mapping) else type(data).__name__
            raise _refused("keys", got, f"{sorted(expected)}")
        values: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in data.items()
        }
        return cls(**values)

    @classmethod
    def from_timm(cls, args: Mapping[str, Any]) -> Preprocessing:
        """Read what a training run recorded (``vars(checkpoint["args"])``), in timm's names.

        Names: input_size (C, H, W) or img_size, mean, std, crop_pct, interpolation, crop_mode
        ("center" or "squash"). One that is missing, None or empty means the default.

        Raises:
            SpecError: A value is there and cannot be.
        """
        given = {key: value for key, value in args.items() if value not in (None, "", [], ())}
        found: dict[str, Any] = {}
        if "input_size" in given:
            size = given["input_size"]
            if not isinstance(size, (list, tuple)) or len(size) != 3 or size[0] != 3:
                raise _refused("input_size", size, "[3, height, width]")
            found["height"], found["width"] = size[1:]
        elif "img_size" in given:
            found["height"] = found["width"] = given["img_size"]
        for name in ("mean", "std"):
            if name in given:
                values = given[name]
                found[name] = tuple(values) if isinstance(values, list) else values
        if "crop_pct" in given:
            found["crop_fraction"] = given["crop_pct"]
        if "interpolation" in given:
            found["interpolation"] = given["interpolation"]
        if "crop_mode" in given:
            modes = {"center": "shortest-edge", "squash": "stretch"}
            found["resize"] = modes.get(str(given["crop_mode"]), given["crop_mode"])
        return cls(**found)


def load_image(
    source: str | os.PathLike[str] | bytes,
    preprocessing: Preprocessing,
    *,
    max_pixels: int | None = None,
) -> NDArray[np.float32]:
    """Decode one image, a file's path or its content, into network input.

    Grey becomes three equal channels. Alpha is dropped, as in the authors' loader. Of 16-bit
    samples the upper 8 bits count, whatever the format. Of several frames, the first. An image of
    more than ``max_pixels``, as it is or scaled, is refused by its header: it is not decoded.

    Shapes:
        (3, H, W), RGB, C-contiguous; the caller owns it.

    Raises:
        InputError: The file is missing, unreadable, empty, truncated, not an image, or too large.
        MissingExtraError: Pillow is not installed.
    """
    name = image_name(source)
    rgb = read_rgb(  # first: it says so if Pillow is missing
        source,
        max_pixels=max_pixels,
        check=lambda image: _check_scaled(
            image, preprocessing, name, max_pixels, (image.size, image.size[::-1])
        ),
    )
    _check_scaled(rgb, preprocessing, name, max_pixels, (rgb.size,))
    return _prepare(rgb, preprocessing)


def prepare_pixels(pixels: NDArray[np.uint8], preprocessing: Preprocessing) -> NDArray[np.float32]:
    """Turn the pixels of a decoded image, such as a video frame, into network input.

    Shapes:
        pixels (H, W, 3), RGB (OpenCV's are BGR); returns (3, H, W), which the caller owns.

    Raises:
        InputError: The array is none of 8-bit RGB, or too large.
        MissingExtraError: Pillow is not installed.
    """
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise InputError(
            f"pixels: got {pixels.dtype} of shape {pixels.shape}, expected uint8 (H, W, 3) in RGB. "
            "Convert the frame."
        )
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingExtraError("pillow", "images") from error

    rgb = Image.fromarray(pixels)
    check_pixel_count(rgb, rgb.width * rgb.height, "pixels")
    _check_scaled(rgb, preprocessing, "pixels", None, (rgb.size,))
    return _prepare(rgb, preprocessing)


def _prepare(rgb: Image.Image, preprocessing: Preprocessing) -> NDArray[np.float32]:
    """Scale, crop and normalise upright 8-bit RGB; (3, H, W)."""
    from PIL import Image

    height, width = preprocessing.scaled_size(rgb.height, rgb.width)
    filters = {
        "nearest": Image.Resampling.NEAREST,
        "bilinear": Image.Resampling.BILINEAR,
        "bicubic": Image.Resampling.BICUBIC,
    }
    # Rows first, then columns, each rounded to 8 bits: Pillow before 13 always did, 13 turns the
    # order round for some shapes (its pull request 9549), which moves bicubic by up to 16 levels.
    for size in ((width, rgb.height), (width, height)):
        rgb = rgb.resize(size, filters[preprocessing.interpolation])
    top = round((height - preprocessing.height) / 2)  # halves to even, as torchvision's CenterCrop
    left = round((width - preprocessing.width) / 2)
    rgb = rgb.crop((left, top, left + preprocessing.width, top + preprocessing.height))
    pixels = np.asarray(rgb, np.float32).transpose(2, 0, 1)  # (H, W, 3) -> (3, H, W)
    mean = np.array(preprocessing.mean, np.float32).reshape(3, 1, 1)
    std = np.array(preprocessing.std, np.float32).reshape(3, 1, 1)
    return np.ascontiguousarray((pixels / np.float32(255) - mean) / std)


def _check_scaled(
    image: Image.Image,
    preprocessing: Preprocessing,
    name: str,
    max_pixels: int | None,
    sizes: Iterable[tuple[int, int]],
) -> None:
    """Refuse what scales to too many pixels in each of these sizes (width, height).

    There are two of them before an image is decoded: it may have to be turned upright.
    """
    found = []
    for old_width, old_height in sizes:
        height, width = preprocessing.scaled_size(old_height, old_width)
        found.append((width * max(height, old_height), width, height))
    pixels, width, height = min(found, key=lambda one: one[0])
    if max_pixels is not None:  # a network of large images may need more than a client may send
        least_height, least_width = preprocessing.scaled_size(
            preprocessing.height, preprocessing.width
        )
        max_pixels = max(max_pixels, 4 * least_height * least_width)
    remark = f"that scale to {width}x{height}"
    check_pixel_count(image, pixels, name, remark, max_pixels=max_pixels)


def _refused(name: str, got: object, expected: str) -> SpecError:
    return SpecError(f"preprocessing {name}: got {got!r}, expected {expected}. Correct the value.")


def _finite(value: object) -> bool:
    # a comparison, for math.isfinite raises on a whole number beyond float's range
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e30
