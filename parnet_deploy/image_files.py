"""Image and label files: which there are, and what is in them as plain pixels and names.

Files are hostile until decoded: only raster formats that Pillow decodes itself are tried, judged
by content and not by name (an EPS file would start Ghostscript), within Pillow's limit on pixels
or a lower one, and whatever a decoder raises becomes one error that names the file.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from .errors import InputError, MissingExtraError

if TYPE_CHECKING:
    from PIL import Image

IMAGE_SUFFIXES = (
    *(".bmp", ".gif", ".jpeg", ".jpg", ".pbm", ".pgm"),
    *(".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"),
)
"""File name endings, in lower case, that ``find_images`` takes from a folder."""

_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "PPM", "TIFF", "WEBP")
_MAX_LABELS_BYTES = 16 * 2**20
_ORIENTATION_TAG = 0x0112


def read_rgb(
    source: str | os.PathLike[str] | bytes,
    *,
    max_pixels: int | None = None,
    check: Callable[[Image.Image], None] | None = None,
) -> Image.Image:
    """Decode one image, a file's path or its content, to upright 8-bit RGB.

    Grey becomes three equal channels. Alpha is dropped. Of 16-bit samples the upper 8 bits count,
    whatever the format. Of several frames, the first.

    Args:
        source: The path or the content.
        max_pixels: Refuse more of them than this, from the header alone. Pillow's limit stands too.
        check: Called with the image when its header is read and no pixel yet; may raise InputError.

    Raises:
        InputError: The file is missing, unreadable, empty, truncated, not an image, or too large.
        MissingExtraError: Pillow is not installed.
    """
    try:
        import PIL.Image  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("pillow", "images") from error

    name = image_name(source)
    with _open(source, name) as stream:
        return _decode_rgb(stream, name, max_pixels, check)


def find_images(paths: Iterable[str | os.PathLike[str]]) -> list[Path]:
    """List the images among files and folders.

    A file is taken whatever its name. A folder gives every file below it whose name ends like an
    image's (``IMAGE_SUFFIXES``), sorted by path; hidden names and links to folders are left out.
    The order of ``paths`` is kept, and a file that occurs twice counts once.

    Raises:
        InputError: A path does not exist, a folder cannot be read, or there is no image at all.
    """
    given = [Path(path) for path in paths]
    found: dict[Path, None] = {}
    for path in given:
        try:
            found.update(dict.fromkeys(_images_below(path) if path.is_dir() else [_file(path)]))
        except OSError as error:
            raise InputError(
                f"images {_printable(path)}: got {_reason(error)}, expected a readable file or "
                "folder. Check the path and its permissions."
            ) from error
    if not found:
        where = ", ".join(map(_printable, given)) or "(no path)"
        raise InputError(
            f"images in {where}: got none, expected a file ending in "
            f"{' '.join(IMAGE_SUFFIXES)}. Name an image, or a folder that holds some."
        )
    return list(found)


def read_labels(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """Read class names, one a line in UTF-8; line i names class i. White space is normalised.

    Raises:
        InputError: The file cannot be read, is no text, holds no name or an empty line between
            names (the names after it would belong to other classes).
    """
    where = f"labels {_printable(path)}"
    try:
        with _file(Path(path)).open("rb") as stream:
            content = stream.read(_MAX_LABELS_BYTES + 1)
    except OSError as error:
        raise InputError(
            f"{where}: got {_reason(error)}, expected a text file. Check the path."
        ) from error
    if len(content) > _MAX_LABELS_BYTES:
        raise InputError(
            f"{where}: got more than {_MAX_LABELS_BYTES} bytes, expected one class name a line. "
            "Check the path."
        )
    try:
        lines = [" ".join(line.split()) for line in content.decode("utf-8-sig").split("\n")]
    except UnicodeDecodeError as error:
        raise InputError(
            f"{where}: got bytes that are not UTF-8 (at {error.start}), expected one class name a "
            "line. Save the file as UTF-8."
        ) from error
    while lines and not lines[-1]:
        lines.pop()
    if not lines:
        raise InputError(
            f"{where}: got no line, expected one class name a line. Name a labels file."
        )
    for number, line in enumerate(lines, 1):
        if not line or not line.isprintable():  # control characters would reach the terminal
            raise InputError(
                f"{where} line {number}: got {line!r}, expected a class name. Correct that line."
            )
    return tuple(lines)


def _printable(path: str | os.PathLike[str]) -> str:
    """The path as it may be shown: a file's name must not steer the terminal."""
    text = os.fspath(path)
    return text if text.isprintable() else repr(text)


def image_name(source: str | os.PathLike[str] | bytes) -> str:
    """What error messages call the image."""
    if isinstance(source, bytes):
        return f"image ({len(source)} bytes)"
    return f"image {_printable(source)}"


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()


def _file(path: Path) -> Path:
    """The path, if it is a file: opening a pipe would wait for a writer, a device have no end."""
    try:
        path.stat()
    except ValueError as error:  # a NUL inside
        raise FileNotFoundError(2, "no such file") from error
    if not path.is_file():
        raise OSError(22, "a folder" if path.is_dir() else "a pipe, socket or device")
    return path


def _images_below(folder: Path) -> list[Path]:
    def refuse(error: OSError) -> None:
        raise error

    found = []
    for parent, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            path = Path(parent, name)
            if path.suffix.lower() in IMAGE_SUFFIXES and not name.startswith("."):
                found.append(path)
    return sorted(found)


def _open(source: str | os.PathLike[str] | bytes, name: str) -> BinaryIO:
    stream: BinaryIO
    try:
        stream = io.BytesIO(source) if isinstance(source, bytes) else _file(Path(source)).open("rb")
        if stream.read(1):
            stream.seek(0)
            return stream
        stream.close()
    except OSError as error:
        raise InputError(
            f"{name}: got {_reason(error)}, expected a readable image file. "
            "Check the path and its permissions."
        ) from error
    raise InputError(f"{name}: got an empty file, expected an image. Remove it, or copy it again.")


def _decode_rgb(
    stream: BinaryIO,
    name: str,
    max_pixels: int | None,
    check: Callable[[Image.Image], None] | None,
) -> Image.Image:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(stream, formats=_FORMATS) as image:
            check_pixel_count(image, image.width * image.height, name, max_pixels=max_pixels)
            if check is not None:
                check(image)
            image.load()
            return _upright(_to_rgb(image, name), _orientation(image))
    except InputError:
        raise
    except UnidentifiedImageError as error:
        raise InputError(
            f"{name}: got a file that is no image, or a damaged one, expected "
            f"{', '.join(_FORMATS)}. Convert it, or leave it out."
        ) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InputError(
            f"{name}: got too many pixels, expected at most {Image.MAX_IMAGE_PIXELS} (a small file "
            "can claim any size). Make the image smaller."
        ) from error
    except Exception as error:  # a decoder raises anything on a hostile file, struct.error included
        detail = _printable(str(error)[:200])
        raise InputError(
            f"{name}: got data that cannot be decoded ({type(error).__name__}: {detail}), expected "
            "a whole image. The file may be truncated: copy it again, or leave it out."
        ) from error


def check_pixel_count(
    image: Image.Image, pixels: int, name: str, remark: str = "", *, max_pixels: int | None = None
) -> None:
    """Refuse what Pillow only warns of; its limit counts, so that a caller can raise it there."""
    from PIL import Image

    if min(image.size) < 1:
        raise InputError(
            f"{name}: got {image.width}x{image.height} pixels, expected at least 1x1. "
            "Leave the image out."
        )
    limits = [limit for limit in (Image.MAX_IMAGE_PIXELS, max_pixels) if limit is not None]
    limit = min(limits, default=pixels)
    if pixels > limit:
        detail = f"{image.width}x{image.height} pixels {remark}".rstrip()
        raise InputError(
            f"{name}: got {detail}, expected at most {limit} in all. "
            "Make the image smaller, or crop it."
        )


def _orientation(image: Image.Image) -> object:
    """The EXIF orientation, 1 (as stored) if there is none. Damaged EXIF harms no pixel."""
    try:
        return image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # EXIF is a file format of its own, parsed from hostile bytes
        return 1


def _upright(image: Image.Image, orientation: object) -> Image.Image:
    from PIL import Image

    turns: dict[object, Image.Transpose] = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }
    turn = turns.get(orientation) if isinstance(orientation, int) else None
    return image if turn is None else image.transpose(turn)


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    """Any decoded image as 8-bit RGB, in memory of its own."""
    from PIL import Image

    sixteen_bit = image.mode.startswith("I;16") or (
        image.mode == "I" and image.format in ("PNG", "PPM")  # 32-bit storage of 16-bit samples
    )
    if sixteen_bit:
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise InputError(
            f"{name}: got 32-bit pixels, whose black and white are unknown, expected 8 or 16 bits. "
            "Convert it to PNG."
        )
    image.info.pop("transparency", None)  # or convert warns, or mixes colours with it
    return image.convert("RGB")
