"""The images that quantization looks at: which files, their labels, and their pixels as input.

Files are images, prepared as the deployment says, or ``.npy`` arrays (C, H, W) float32 that were
prepared elsewhere. Labels come from a CSV file, or from folders that are named like the labels.
"""

from __future__ import annotations

import csv
import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..preprocess import Preprocessing, find_images, load_image
from ..spec import ModelSpec

MIN_IMAGES = 16  # fewer say nothing about a range
MIN_EVALUATED = 8  # fewer prove nothing: two may always differ
MEMORY_BYTES = 1 << 30  # what the prepared images of one set may take
ARRAY_SUFFIX = ".npy"
CSV_COLUMNS = ("file", "label")

Images = NDArray[np.float32]  # (N, C, H, W)
Labels = NDArray[np.int64]  # (N,)
OnImage = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class ImageSet:
    """Files in a fixed order, and the class of each where it is known."""

    name: str
    paths: tuple[Path, ...]
    classes: tuple[int, ...] | None = None

    def __len__(self) -> int:
        return len(self.paths)

    def spread(self, count: int) -> ImageSet:
        """At most ``count`` of the images, evenly over the whole order: every folder is in it."""
        if count >= len(self):
            return self
        return self._pick([int(i) for i in np.linspace(0, len(self) - 1, count).round()])

    def split(self, every: int) -> tuple[ImageSet, ImageSet]:
        """The images but every n-th, and every n-th: to calibrate on, and to look back with."""
        kept = [i for i in range(len(self)) if i % every]
        held = [i for i in range(len(self)) if not i % every]
        return self._pick(kept), replace(self._pick(held), name=f"{self.name}, held out")

    def _pick(self, order: Sequence[int]) -> ImageSet:
        classes = None if self.classes is None else tuple(self.classes[i] for i in order)
        return replace(self, paths=tuple(self.paths[i] for i in order), classes=classes)


@dataclass(frozen=True, kw_only=True)
class LoadedSet:
    """Prepared images. ``classes`` is None if they are not known. ``sha256`` names the content."""

    name: str
    images: Images
    classes: Labels | None
    sha256: str

    def __len__(self) -> int:
        return len(self.images)

    def spread(self, count: int) -> NDArray[np.int64]:
        """Positions of at most ``count`` images, evenly over the whole order."""
        positions = np.linspace(0, len(self) - 1, min(count, len(self))).round()
        return np.asarray(positions, np.int64)

    def with_noise(self, sigma: float) -> LoadedSet:
        """The same images with Gaussian noise, the same every time; in normalised units."""
        random = np.random.default_rng(0)
        noise = random.standard_normal(self.images.shape, dtype=np.float32) * np.float32(sigma)
        digest = hashlib.sha256(f"{self.sha256} noise {sigma}".encode()).hexdigest()
        name = f"{self.name} with noise"
        return replace(self, name=name, images=self.images + noise, sha256=digest)


def find_image_set(
    name: str,
    paths: Sequence[Path],
    *,
    labels: Sequence[str],
    table: Path | None = None,
    minimum: int = MIN_IMAGES,
) -> ImageSet:
    """List the files of a set and the class of each.

    Args:
        name: For messages and reports: "calibration", "evaluation".
        paths: Files and folders, as ``find_images`` takes them; folders may hold ``.npy`` too.
        labels: The name of each class, in order.
        table: CSV file with the columns ``file`` and ``label``: only its files count then. Paths
            in it are relative to the file itself.
        minimum: Fewer images are refused.

    Raises:
        InputError: There are no images, too few, or the CSV names something that is not there.
    """
    number = {label: k for k, label in enumerate(labels)}
    classes: list[int] | None
    if table is not None:
        found, classes = _read_table(table, number)
    else:
        found = _find(paths)
        known = [number.get(path.absolute().parent.name) for path in found]
        classes = None if None in known else [k for k in known if k is not None]
    if len(found) < minimum:
        where = table if table is not None else ", ".join(map(str, paths))
        raise InputError(
            f"{name} images in {where}: got {len(found)}, expected at least {minimum}. "
            "Add more images of the kind that the network will see."
        )
    given = None if classes is None else tuple(classes)
    return ImageSet(name=name, paths=tuple(found), classes=given)


def load_set(
    images: ImageSet,
    preprocessing: Preprocessing,
    spec: ModelSpec,
    *,
    on_image: OnImage = lambda done, total: None,
) -> LoadedSet:
    """Read and prepare every image; of a set too large for memory an even part.

    Raises:
        InputError: A file cannot be read, has other channels or another size, or holds NaN; the
            message names it.
        MissingExtraError: Pillow is not installed.
    """
    shape = (spec.in_channels, preprocessing.height, preprocessing.width)
    size = int(np.prod(shape)) * np.dtype(np.float32).itemsize
    chosen = images.spread(max(MEMORY_BYTES // size, 1))
    data = np.empty((len(chosen), *shape), np.float32)
    digest = hashlib.sha256()
    for i, path in enumerate(chosen.paths):
        array = _load(path, preprocessing, shape)
        data[i] = array
        label = -1 if chosen.classes is None else chosen.classes[i]
        digest.update(hashlib.sha256(array.tobytes()).digest() + str(label).encode())
        on_image(i + 1, len(chosen))
    classes = None if chosen.classes is None else np.array(chosen.classes, np.int64)
    return LoadedSet(name=chosen.name, images=data, classes=classes, sha256=digest.hexdigest())


def _load(path: Path, preprocessing: Preprocessing, shape: tuple[int, ...]) -> Images:
    if path.suffix.lower() != ARRAY_SUFFIX:
        array = load_image(path, preprocessing)
    else:
        array = _load_array(path)
    if array.shape[0] != shape[0]:
        raise InputError(
            f"image {path}: got {array.shape[0]} channels, expected {shape[0]} as the network "
            f"reads. Give {ARRAY_SUFFIX} arrays of {list(shape)}."
        )
    if array.shape != shape:
        raise InputError(
            f"image {path}: got shape {list(array.shape)}, expected {list(shape)}. "
            "Prepare it for the deployment's input size."
        )
    if not np.isfinite(array).all():
        raise InputError(
            f"image {path}: got NaN or Inf in {np.count_nonzero(~np.isfinite(array))} values, "
            "expected finite pixels. Leave the file out, or prepare it again."
        )
    return array


def _load_array(path: Path) -> Images:
    """A prepared array; no pickle is ever loaded."""
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(
            f"image {path}: got {error}, expected a numpy array. Copy it again, or leave it out."
        ) from error
    if not isinstance(array, np.ndarray) or array.dtype != np.float32 or array.ndim != 3:
        about = f"{array.dtype} {list(array.shape)}" if isinstance(array, np.ndarray) else "a zip"
        raise InputError(
            f"image {path}: got {about}, expected float32 (C, H, W). Save one image a file."
        )
    return array


def _find(paths: Sequence[Path]) -> list[Path]:
    """Images and arrays below the paths, in the order of their names."""
    arrays: list[Path] = []
    for path in paths:
        if path.is_dir():
            arrays += [Path(at, n) for at, _, names in os.walk(path) for n in names if _is_array(n)]
        elif _is_array(path.name):
            arrays.append(path)
    if not arrays:
        return find_images(paths)
    try:
        images = find_images(path for path in paths if not _is_array(path.name))
    except InputError:
        if not all(path.exists() for path in paths):
            raise
        images = []  # nothing but arrays
    return sorted([*arrays, *images])


def _is_array(name: str) -> bool:
    return name.lower().endswith(ARRAY_SUFFIX) and not name.startswith(".")


def _read_table(table: Path, number: dict[str, int]) -> tuple[list[Path], list[int]]:
    """Files and classes of a CSV."""
    found, classes = [], []
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            if tuple(reader.fieldnames or ()) != CSV_COLUMNS:
                raise InputError(
                    f"labels {table}: got the columns {reader.fieldnames}, expected "
                    f"{','.join(CSV_COLUMNS)} in the first line. Correct that line."
                )
            for row in reader:
                where = f"labels {table} line {reader.line_num}"
                found.append(_listed(table, row["file"], where))
                classes.append(_class(row["label"], number, where))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"labels {table}: got {error}, expected a CSV file in UTF-8. Check the path."
        ) from error
    return found, classes


def _listed(table: Path, name: str | None, where: str) -> Path:
    path = table.parent / (name or "")
    if not name or not path.is_file():
        raise InputError(
            f"{where}: got the file {name!r}, which is not there, expected one relative to "
            f"{table.parent}. Correct that line."
        )
    return path


def _class(label: str | None, number: dict[str, int], where: str) -> int:
    text = " ".join((label or "").split())
    if text not in number:
        raise InputError(
            f"{where}: got the label {label!r}, expected one of the deployment's {len(number)}. "
            "Correct that line."
        )
    return number[text]


def check_varied(found: LoadedSet, where: str) -> None:
    """Refuse a set that is one image many times, or images of one colour.

    Raises:
        InputError: It says nothing about a range, and nothing about an answer.
    """
    images = found.images
    spread = max(float(np.ptp(image)) for image in images)
    same = all(np.array_equal(image, images[0]) for image in images[1:])
    if same or spread == 0:
        raise InputError(
            f"{where}: got {'the same image' if same else 'one colour'} {len(images)} times, "
            "expected images of the kind that the network will see."
        )
