from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from parnet_deploy.errors import InputError
from parnet_deploy.preprocess import Preprocessing
from parnet_deploy.quantize import calibration_set
from parnet_deploy.quantize.calibration_set import find_image_set, load_set
from parnet_deploy.spec import ModelSpec

EVAL = Path(__file__).parents[2] / "calibration/digits/eval"
LABELS = tuple(map(str, range(10)))
SPEC = ModelSpec(planes=(4, 6, 8, 12), num_blocks=(1, 1, 1, 1), num_classes=10)
GREY = ModelSpec(planes=(4, 6, 8, 12), num_blocks=(1, 1, 1, 1), num_classes=10, in_channels=1)
PREPROCESSING = Preprocessing(height=32, width=32, crop_fraction=1.0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two real images of each digit, in folders named like the labels."""
    for label in LABELS:
        (tmp_path / "images" / label).mkdir(parents=True)
        for file in sorted((EVAL / label).iterdir())[:2]:
            shutil.copy(file, tmp_path / "images" / label)
    return tmp_path / "images"


def write_array(path: Path, **changes) -> Path:
    array = np.random.default_rng(0).standard_normal((3, 32, 32), dtype=np.float32)
    array = array.astype(changes.get("dtype", np.float32))
    if "nan" in changes:
        array[1, 2, 3] = np.nan
    np.save(path, array[changes.get("channels", slice(None))])
    return path


def load(folder: Path, spec: ModelSpec = SPEC):
    return load_set(find_image_set("calibration", [folder], labels=LABELS), PREPROCESSING, spec)


def test_folders_named_like_labels_give_the_classes(folder) -> None:
    found = find_image_set("calibration", [folder], labels=LABELS)
    assert len(found) == 20
    assert found.classes == tuple(k for k in range(10) for _ in range(2))
    assert find_image_set("calibration", [folder], labels=("a", "b")).classes is None


def test_a_csv_gives_files_and_classes(folder) -> None:
    lines = [f"images/{p.parent.name}/{p.name},9" for p in sorted(folder.rglob("*.png"))]
    table = folder.parent / "labels.csv"
    table.write_text("\n".join(["file,label", *lines]))
    found = find_image_set("evaluation", [], labels=LABELS, table=table)
    assert found.classes == (9,) * 20


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,label\n", "got the columns"),
        ("file,label\nnone.png,1\n", r"line 2: got the file 'none\.png'"),
        ("file,label\nlabels.csv,eleven\n", "line 2: got the label 'eleven'"),
        ("file,label\nlabels.csv\n", "line 2: got the label None"),
        ("file,label\n\x00", "labels"),
    ],
)
def test_a_wrong_csv_names_its_line(tmp_path, text, message) -> None:
    table = tmp_path / "labels.csv"
    table.write_text(text)
    with pytest.raises(InputError, match=message):
        find_image_set("evaluation", [], labels=LABELS, table=table)


def test_a_csv_that_is_no_text_is_refused(tmp_path) -> None:
    table = tmp_path / "labels.csv"
    table.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"labels .*labels\.csv: got .*UTF-8"):
        find_image_set("evaluation", [], labels=LABELS, table=table)


def test_too_few_images_are_refused(folder) -> None:
    for path in sorted(folder.rglob("*.png"))[5:]:
        path.unlink()
    with pytest.raises(InputError, match=r"calibration images in .*: got 5, expected at least 16"):
        find_image_set("calibration", [folder], labels=LABELS)


def test_an_unreadable_image_is_named(folder) -> None:
    bad = folder / "3" / "broken.png"
    bad.write_bytes(b"\x89PNG\r\n\x1a\n nothing more")
    with pytest.raises(InputError, match=r"3/broken\.png"):
        load(folder)


def test_arrays_are_taken_beside_images(folder) -> None:
    write_array(folder / "0" / "made.npy")
    found = load(folder)
    assert found.images.shape == (21, 3, 32, 32)
    expected = np.load(folder / "0" / "made.npy")
    assert any(np.array_equal(image, expected) for image in found.images)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"nan": True}, r"bad\.npy: got NaN or Inf in 1 values"),
        ({"channels": slice(0, 1)}, r"bad\.npy: got 1 channels, expected 3"),
        ({"channels": 0}, r"bad\.npy: got float32 \[32, 32\], expected float32 \(C, H, W\)"),
        ({"dtype": np.float64}, r"bad\.npy: got float64"),
        ({"channels": (slice(None), slice(0, 16))}, r"bad\.npy: got shape \[3, 16, 32\]"),
    ],
)
def test_a_bad_array_is_named(folder, changes, message) -> None:
    write_array(folder / "0" / "bad.npy", **changes)
    with pytest.raises(InputError, match=message):
        load(folder)


def test_a_truncated_array_is_named(folder) -> None:
    path = write_array(folder / "0" / "bad.npy")
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(InputError, match=r"bad\.npy: got "):
        load(folder)


def test_colour_images_for_a_grey_network_are_refused(folder) -> None:
    with pytest.raises(InputError, match=r"\.png: got 3 channels, expected 1"):
        load(folder, GREY)


def test_a_folder_that_is_not_there_is_refused(tmp_path) -> None:
    write_array(tmp_path / "a.npy")
    with pytest.raises(InputError, match="nowhere"):
        find_image_set("c", [tmp_path / "a.npy", tmp_path / "nowhere"], labels=LABELS)


def test_the_hash_sees_pixels_labels_and_order(folder) -> None:
    before = load(folder).sha256
    assert load(folder).sha256 == before
    moved = next((folder / "0").iterdir())
    moved.rename(folder / "1" / moved.name)
    assert load(folder).sha256 != before


def test_a_set_too_large_for_memory_is_thinned_evenly(folder, monkeypatch) -> None:
    monkeypatch.setattr(calibration_set, "MEMORY_BYTES", 10 * 3 * 32 * 32 * 4)
    found = load(folder)
    assert len(found) == 10
    assert set(found.classes) == set(range(10))


def test_held_out_images_are_no_calibration_images(folder) -> None:
    found = find_image_set("calibration", [folder], labels=LABELS)
    kept, held = found.split(4)
    assert len(held) == 5
    assert not set(kept.paths) & set(held.paths)
    assert set(kept.paths) | set(held.paths) == set(found.paths)


def test_noise_is_the_same_every_time_and_has_its_own_hash(folder) -> None:
    found = load(folder)
    noisy = found.with_noise(0.5)
    assert np.array_equal(noisy.images, found.with_noise(0.5).images)
    assert np.std(noisy.images - found.images) == pytest.approx(0.5, rel=0.05)
    assert noisy.sha256 not in (found.sha256, found.with_noise(0.25).sha256)
