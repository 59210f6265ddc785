"""Preprocessing against a second implementation, and image files as bad as they come."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from parnet_deploy.errors import InputError, MissingExtraError, SpecError
from parnet_deploy.image_files import IMAGE_SUFFIXES
from parnet_deploy.preprocess import (
    INTERPOLATIONS,
    RESIZES,
    Preprocessing,
    find_images,
    load_image,
    prepare_pixels,
    read_labels,
)

SHOW_PIXELS = Preprocessing(  # the output is the picture itself, in 0..1
    height=6, width=4, mean=(0.0,) * 3, std=(1.0,) * 3, resize="stretch", crop_fraction=1.0
)


def png(pixels: np.ndarray, **options: object) -> bytes:
    """Encode (H, W), (H, W, 3) or (H, W, 4) losslessly."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", **options)
    return stream.getvalue()


def saved(image: Image.Image, file_format: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, file_format, **options)
    return stream.getvalue()


def raw_png(
    width: int, height: int, bits: int, colour: int, rows: bytes, *extra: tuple[bytes, bytes]
) -> bytes:
    """A PNG as given, plausible or not."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    chunks = [(b"IHDR", header), *extra, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*c) for c in chunks)


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def shown(content: bytes | Path, like: np.ndarray) -> np.ndarray:
    """What load_image makes of it at its own size, as 8-bit (H, W, 3)."""
    size = dataclasses.replace(SHOW_PIXELS, height=like.shape[0], width=like.shape[1])
    out = load_image(content, size)
    return np.round(out * 255).astype(np.uint8).transpose(1, 2, 0)


# The second implementation: plain numpy, float64, from the description of the filters.


def reference_resize(
    pixels: np.ndarray, height: int, width: int, method: str, nudges: tuple[float, float]
) -> np.ndarray:
    for axis, size, nudge in ((1, width, nudges[1]), (0, height, nudges[0])):
        weights = reference_weights(pixels.shape[axis], size, method, nudge)
        moved = np.tensordot(weights, pixels.astype(np.float64), (1, axis))
        pixels = np.clip(np.floor(np.moveaxis(moved, 0, axis) + 0.5), 0, 255)
    return pixels


def reference_weights(old: int, new: int, method: str, nudge: float) -> np.ndarray:
    """Rows sum to 1; the filter widens when the image shrinks. Shapes: (new, old)."""
    centres = (np.arange(new) + 0.5) * old / new + nudge
    if method == "nearest":
        return np.eye(old)[np.floor(centres).astype(int)]
    widen = max(old / new, 1.0)
    distance = np.abs((np.arange(old) + 0.5)[None] - centres[:, None]) / widen
    if method == "bilinear":
        weights = np.clip(1 - distance, 0, None)
    else:  # Keys' cubic with a = -0.5
        near = (1.5 * distance - 2.5) * distance**2 + 1
        far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
        weights = np.where(distance < 1, near, np.where(distance < 2, far, 0))
    return weights / weights.sum(1, keepdims=True)


def reference(
    pixels: np.ndarray, p: Preprocessing, nudges: tuple[float, float] = (0, 0)
) -> np.ndarray:
    old_height, old_width = pixels.shape[:2]
    height, width = math.floor(p.height / p.crop_fraction), math.floor(p.width / p.crop_fraction)
    if p.resize == "shortest-edge":
        if width / old_width >= height / old_height:
            height = width * old_height // old_width
        else:
            width = height * old_width // old_height
    out = reference_resize(pixels, height, width, p.interpolation, nudges)
    top, left = round((height - p.height) / 2), round((width - p.width) / 2)
    out = out[top : top + p.height, left : left + p.width] / 255
    return ((out - np.array(p.mean)) / np.array(p.std)).transpose(2, 0, 1)


class TestAgainstReference:
    @settings(max_examples=150, deadline=None)
    @given(
        old=st.tuples(st.integers(1, 40), st.integers(1, 40)),
        new=st.tuples(st.integers(1, 24), st.integers(1, 24)),
        resize=st.sampled_from(RESIZES),
        interpolation=st.sampled_from(INTERPOLATIONS),
        crop=st.sampled_from([0.5, 0.7, 0.875, 0.95, 1.0]),
        seed=st.integers(0, 9),
    )
    def test_every_mode(self, old, new, resize, interpolation, crop, seed) -> None:
        pixels = picture(*old, seed)
        p = Preprocessing(
            height=new[0],
            width=new[1],
            resize=resize,
            interpolation=interpolation,
            crop_fraction=crop,
        )
        got = load_image(png(pixels), p)
        assert got.shape == (3, *new)
        assert got.dtype == np.float32
        assert got.flags.c_contiguous
        # Pillow rounds its weights to 22 bits: a pixel may fall on the other side of a half, in
        # each of two passes. And the nearest of two pixels at the same distance is either.
        two_levels = 2.01 / 255 / np.array(p.std).reshape(3, 1, 1)
        either = [0.0] if interpolation != "nearest" else [-1e-9, 1e-9]
        errors = [np.abs(got - reference(pixels, p, (y, x))) for y in either for x in either]
        assert (np.min(errors, 0) <= two_levels).all()

    @pytest.mark.parametrize("interpolation", INTERPOLATIONS)
    def test_the_modes_differ(self, interpolation) -> None:
        content = png(picture(9, 7))
        p = dataclasses.replace(SHOW_PIXELS, interpolation=interpolation)
        others = [
            load_image(content, dataclasses.replace(SHOW_PIXELS, interpolation=other))
            for other in INTERPOLATIONS
            if other != interpolation
        ]
        got = load_image(content, p)
        assert all(np.abs(got - other).max() > 0.02 for other in others)

    def test_normalisation_is_exact(self) -> None:
        content = png(np.full((300, 260, 3), (255, 128, 0), np.uint8))
        got = load_image(content, Preprocessing())
        for channel, value in enumerate((255, 128, 0)):
            mean, std = Preprocessing().mean[channel], Preprocessing().std[channel]
            expected = (np.float32(value) / np.float32(255) - np.float32(mean)) / np.float32(std)
            assert (got[channel] == expected).all()

    def test_default_is_the_published_evaluation(self) -> None:
        p = Preprocessing()
        assert (p.height, p.width, p.resize, p.interpolation) == (
            224,
            224,
            "shortest-edge",
            "bicubic",
        )
        assert p.crop_fraction == 0.875
        assert p.mean == (0.485, 0.456, 0.406)
        assert p.std == (0.229, 0.224, 0.225)

    @pytest.mark.parametrize(
        ("old", "scaled"),
        [
            ((375, 500), (256, 341)),  # what torchvision's Resize(256) gives
            ((500, 375), (341, 256)),
            ((256, 256), (256, 256)),
            ((1, 3), (256, 768)),
        ],
    )
    def test_shortest_edge_size(self, old, scaled) -> None:
        assert Preprocessing().scaled_size(*old) == scaled

    def test_the_caller_owns_the_result(self) -> None:
        content = png(picture(8, 8))
        first = load_image(content, SHOW_PIXELS)
        kept = first.copy()
        first[:] = -1
        assert (load_image(content, SHOW_PIXELS) == kept).all()


# What a viewer has to do with the stored rows, by the EXIF standard.
TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
    8: lambda a: np.rot90(a, 1),
    9: lambda a: a,  # no such orientation
}


class TestPixelFormats:
    grey = np.arange(24, dtype=np.uint8).reshape(6, 4) * 10

    def expect_grey(self, content: bytes) -> None:
        assert (shown(content, self.grey) == self.grey[..., None]).all()

    def test_grey(self) -> None:
        self.expect_grey(png(self.grey))

    def test_one_bit(self) -> None:
        bits = self.grey > 100
        got = shown(saved(Image.fromarray(bits), "PNG"), self.grey)
        assert (got == bits[..., None] * 255).all()

    @pytest.mark.parametrize("file_format", ["PNG", "TIFF", "PPM"])
    def test_sixteen_bit_grey_keeps_its_brightness(self, file_format) -> None:
        wide = self.grey.astype(np.uint16) * 257
        self.expect_grey(saved(Image.fromarray(wide), file_format))

    def test_sixteen_bit_grey_of_the_other_byte_order(self) -> None:
        entries = [
            (256, 4),
            (257, 6),
            (258, 16),
            (259, 1),
            (262, 1),
            (273, 200),
            (277, 1),
            (278, 6),
        ]
        entries.append((279, 48))
        head = b"MM" + struct.pack(">HIH", 42, 8, len(entries))
        head += b"".join(struct.pack(">HHII", tag, 4, 1, value) for tag, value in entries)
        wide = (self.grey.astype(np.uint16) * 257).astype(">u2")
        self.expect_grey(head.ljust(200, b"\0") + wide.tobytes())

    def test_sixteen_bit_colour_equals_sixteen_bit_grey(self) -> None:
        wide = self.grey.astype(np.uint16) * 257 + 3
        rows = b"".join(
            b"\0" + np.repeat(row[:, None], 3, 1).astype(">u2").tobytes() for row in wide
        )
        colour = shown(raw_png(4, 6, 16, 2, rows), self.grey)
        grey = shown(saved(Image.fromarray(wide), "PNG"), self.grey)
        assert (colour == grey).all()

    @pytest.mark.parametrize("mode", ["I", "F"])
    def test_thirty_two_bits_are_refused(self, mode) -> None:
        content = saved(Image.new(mode, (4, 4)), "TIFF")
        with pytest.raises(InputError, match=r"got 32-bit pixels, .* expected 8 or 16 bits"):
            load_image(content, SHOW_PIXELS)

    def test_alpha_is_dropped(self) -> None:
        pixels = picture(6, 4)
        alpha = np.dstack([pixels, self.grey])
        assert (shown(png(alpha), pixels) == pixels).all()

    def test_grey_with_alpha(self) -> None:
        self.expect_grey(saved(Image.fromarray(np.dstack([self.grey, self.grey[::-1]])), "PNG"))

    @pytest.mark.parametrize("transparency", [None, 3, bytes(range(200, 224))])
    def test_palette(self, transparency) -> None:
        image = Image.fromarray(np.arange(24, dtype=np.uint8).reshape(6, 4), "P")
        colours = picture(1, 24)
        image.putpalette(colours.tobytes())
        options = {} if transparency is None else {"transparency": transparency}
        got = shown(saved(image, "PNG", **options), self.grey)
        assert (got == colours.reshape(6, 4, 3)).all()

    @pytest.mark.parametrize("transparency", [0, 10])
    def test_transparent_grey_value_is_still_that_grey(self, transparency) -> None:
        self.expect_grey(saved(Image.fromarray(self.grey), "PNG", transparency=transparency))

    def test_first_frame_of_several(self) -> None:
        frames = [Image.fromarray(self.grey), Image.fromarray(255 - self.grey)]
        self.expect_grey(saved(frames[0], "TIFF", save_all=True, append_images=frames[1:]))

    def test_cmyk(self) -> None:
        image = Image.new("CMYK", (4, 6), (0, 255, 255, 0))
        assert (shown(saved(image, "TIFF"), self.grey) == (255, 0, 0)).all()

    @pytest.mark.parametrize("file_format", ["PNG", "BMP", "PPM", "TIFF", "WEBP", "GIF", "JPEG"])
    def test_file_formats(self, file_format) -> None:
        options = {"lossless": True} if file_format == "WEBP" else {}
        colour = np.full((6, 4, 3), (200, 100, 50), np.uint8)
        got = shown(saved(Image.fromarray(colour), file_format, **options), colour)
        assert np.abs(got.astype(int) - colour).max() <= (2 if file_format == "JPEG" else 0)

    @pytest.mark.parametrize("orientation", TURNS)
    @pytest.mark.parametrize("file_format", ["PNG", "TIFF", "JPEG"])
    def test_exif_orientation(self, file_format, orientation) -> None:
        blocks = np.array([[[250, 0, 0], [0, 250, 0]], [[0, 0, 250], [250, 250, 250]]], np.uint8)
        stored = blocks.repeat(32, 0).repeat(16, 1)  # (64, 32, 3): whole JPEG blocks
        exif = Image.Exif()
        exif[0x0112] = orientation
        options = {"quality": 100, "subsampling": 0} if file_format == "JPEG" else {}
        content = saved(Image.fromarray(stored), file_format, exif=exif, **options)
        upright = TURNS[orientation](stored)
        got = shown(content, upright)
        assert np.abs(got.astype(int) - upright).max() <= (4 if file_format == "JPEG" else 0)

    def test_sixteen_bit_with_orientation(self) -> None:
        exif = Image.Exif()
        exif[0x0112] = 6
        content = saved(Image.fromarray(self.grey.astype(np.uint16) * 257), "PNG", exif=exif)
        upright = np.rot90(self.grey, -1)
        assert (shown(content, upright) == upright[..., None]).all()

    def test_damaged_exif_leaves_the_picture(self) -> None:
        rows = b"".join(b"\0" + row.tobytes() for row in self.grey)
        self.expect_grey(raw_png(4, 6, 8, 0, rows, (b"eXIf", b"MM\0\x2a\xff\xff\xff\xff")))
        text = b"Raw profile type exif\0\nexif\n  9\nzz-not-hex\n"
        self.expect_grey(raw_png(4, 6, 8, 0, rows, (b"tEXt", text)))


class TestHostileFiles:
    def test_missing(self, tmp_path) -> None:
        with pytest.raises(InputError, match=r"nothing\.png: got no such file.* Check the path"):
            load_image(tmp_path / "nothing.png", SHOW_PIXELS)

    def test_folder(self, tmp_path) -> None:
        with pytest.raises(InputError, match=r"got a folder, expected a readable image file"):
            load_image(tmp_path, SHOW_PIXELS)

    @pytest.mark.parametrize("path", ["a\0b.png", "x" * 300 + ".png"])
    def test_impossible_name(self, path) -> None:
        with pytest.raises(InputError, match=r"expected a readable image file"):
            load_image(path, SHOW_PIXELS)

    def test_pipe_does_not_hang(self, tmp_path) -> None:
        os.mkfifo(tmp_path / "pipe.png")
        with pytest.raises(InputError, match=r"got a pipe, socket or device"):
            load_image(tmp_path / "pipe.png", SHOW_PIXELS)

    def test_no_permission(self, tmp_path, monkeypatch) -> None:
        (tmp_path / "a.png").write_bytes(b"x")

        def refuse(self: Path, mode: str) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(Path, "open", refuse)  # root may read everything
        with pytest.raises(InputError, match=r"a\.png: got permission denied"):
            load_image(tmp_path / "a.png", SHOW_PIXELS)

    def test_empty(self, tmp_path) -> None:
        (tmp_path / "a.png").write_bytes(b"")
        with pytest.raises(InputError, match=r"a\.png: got an empty file, expected an image"):
            load_image(tmp_path / "a.png", SHOW_PIXELS)
        with pytest.raises(InputError, match=r"image \(0 bytes\): got an empty file"):
            load_image(b"", SHOW_PIXELS)

    @pytest.mark.parametrize(
        "content",
        [
            b"just text",
            b"<svg xmlns='http://www.w3.org/2000/svg'/>",
            b"\x80\x04cos\nsystem\n(S'touch /tmp/owned'\ntR.",
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n",
            b"\x89PNG\r\n\x1a\n",
            b"\xff\xd8\xff\xe0",
            raw_png(0, 5, 8, 0, b""),
            raw_png(5, 5, 3, 9, b""),
        ],
        ids=["text", "svg", "pickle", "eps", "png-head", "jpeg-head", "no-width", "bad-header"],
    )
    def test_no_image(self, content, tmp_path) -> None:
        (tmp_path / "a.png").write_bytes(content)
        with pytest.raises(InputError, match=r"image .*a\.png: got .*, expected "):
            load_image(tmp_path / "a.png", SHOW_PIXELS)

    @pytest.mark.parametrize("file_format", ["PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM"])
    def test_half_a_file_is_refused(self, file_format) -> None:
        content = saved(Image.fromarray(picture(64, 64)), file_format)
        with pytest.raises(
            InputError, match=r"got .*, expected .*copy it again|got a file that is"
        ):
            load_image(content[: len(content) // 2], SHOW_PIXELS)

    @settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(data=st.data())
    def test_damaged_bytes_give_an_array_or_our_error(self, data) -> None:
        content = bytearray(data.draw(st.sampled_from(self.samples)))
        for _ in range(data.draw(st.integers(1, 4))):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
        del content[data.draw(st.integers(1, len(content))) :]
        message, out = "", None
        try:
            out = load_image(bytes(content), SHOW_PIXELS)
        except InputError as error:
            message = str(error)
        if out is None:
            assert message.startswith(f"image ({len(content)} bytes): got ")
            assert "\n" not in message
        else:
            assert out.shape == (3, 6, 4)
            assert np.isfinite(out).all()

    samples = tuple(
        saved(Image.fromarray(picture(5, 7)), file_format)
        for file_format in ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")
    )

    @pytest.mark.parametrize("side", [10_000, 20_000, 2**31 - 1])
    def test_decompression_bomb(self, side) -> None:
        # Pillow only warns at 10,000 x 10,000, refuses the next; the file has 60 bytes
        with pytest.raises(InputError, match=r"got .*pixels.*, expected at most 89478485"):
            load_image(raw_png(side, side, 8, 0, b""), SHOW_PIXELS)

    def test_bomb_under_the_callers_own_limit(self, monkeypatch) -> None:
        content = png(picture(10, 10))
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 99)
        with pytest.raises(InputError, match=r"expected at most 99 "):
            load_image(content, SHOW_PIXELS)
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
        load_image(content, SHOW_PIXELS)

    def test_bomb_by_shape(self) -> None:
        content = png(np.zeros((1, 60_000), np.uint8))  # 60,000 pixels, 3.9e9 after scaling
        with pytest.raises(InputError, match=r"got 60000x1 pixels that scale to 15360000x256, exp"):
            load_image(content, Preprocessing())

    @pytest.mark.parametrize(
        ("size", "most"), [((60_000, 1), None), ((1, 60_000), None), ((9, 9), 80), ((3, 900), 9999)]
    )
    def test_a_bomb_is_not_even_decoded(self, size, most) -> None:
        truncated = raw_png(*size, 8, 0, b"")  # would fail if it were
        with pytest.raises(InputError, match=r"pixels.*, expected at most .* in all"):
            load_image(truncated, Preprocessing(), max_pixels=most)

    def test_a_network_of_large_images_takes_images_of_its_size(self) -> None:
        large = Preprocessing(height=64, width=64)
        assert load_image(png(picture(10, 10)), large, max_pixels=100).shape == (3, 64, 64)

    def test_bomb_between_the_two_passes(self) -> None:
        content = png(np.zeros((60_000, 1), np.uint8))
        wide = Preprocessing(width=8192, resize="stretch")  # 9362 x 60,000 pixels in between
        with pytest.raises(InputError, match=r"got 1x60000 pixels that scale to 9362x256, exp"):
            load_image(content, wide)

    def test_a_name_cannot_steer_the_terminal(self, tmp_path) -> None:
        path = tmp_path / "\x1b[31m\n.png"
        path.write_bytes(b"no image")
        with pytest.raises(InputError) as caught:
            load_image(path, SHOW_PIXELS)
        assert str(caught.value).isprintable()

    def test_the_cause_is_chained_and_the_file_closed(self, tmp_path) -> None:
        path = tmp_path / "a.png"
        path.write_bytes(png(picture(64, 64))[:500])
        with pytest.raises(InputError) as caught:
            load_image(path, SHOW_PIXELS)
        assert isinstance(caught.value.__cause__, OSError)

    def test_without_pillow(self, monkeypatch) -> None:
        monkeypatch.setitem(sys.modules, "PIL", None)
        with pytest.raises(MissingExtraError, match=r"pip install 'parnet-deploy\[images\]'"):
            load_image(b"x", SHOW_PIXELS)

    def test_pillow_is_imported_on_first_use_only(self) -> None:
        code = "import sys, parnet_deploy.preprocess; sys.exit('PIL' in sys.modules)"
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


class TestPixels:
    """Frames that are in memory already."""

    @given(
        size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
        resize=st.sampled_from(RESIZES),
        interpolation=st.sampled_from(INTERPOLATIONS),
        crop=st.floats(0.5, 1),
    )
    def test_the_same_as_the_same_pixels_in_a_file(self, size, resize, interpolation, crop) -> None:
        preprocessing = Preprocessing(
            height=16, width=12, resize=resize, interpolation=interpolation, crop_fraction=crop
        )
        pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
        wanted = load_image(png(pixels), preprocessing)
        assert np.array_equal(prepare_pixels(pixels, preprocessing), wanted)
        reversed_view = pixels[:, :, ::-1].copy()[:, :, ::-1]  # as BGR is turned, without a copy
        assert np.array_equal(prepare_pixels(reversed_view, preprocessing), wanted)

    @pytest.mark.parametrize(
        "pixels",
        [
            np.zeros((4, 4, 3), np.float32),
            np.zeros((4, 4), np.uint8),
            np.zeros((4, 4, 4), np.uint8),
            np.zeros((0, 4, 3), np.uint8),
        ],
    )
    def test_anything_else_is_refused(self, pixels) -> None:
        with pytest.raises(InputError, match=r"^pixels: got .*expected"):
            prepare_pixels(pixels, SHOW_PIXELS)

    def test_a_frame_that_would_scale_to_a_bomb_is_refused(self) -> None:
        thin = np.zeros((1, 60000, 3), np.uint8)
        with pytest.raises(InputError, match="that scale to"):
            prepare_pixels(thin, Preprocessing())

    def test_without_pillow(self, monkeypatch) -> None:
        monkeypatch.setitem(sys.modules, "PIL", None)
        with pytest.raises(MissingExtraError, match=r"parnet-deploy\[images\]"):
            prepare_pixels(np.zeros((4, 4, 3), np.uint8), SHOW_PIXELS)


class TestPreprocessingAsData:
    numbers = st.floats(-1e6, 1e6)

    @given(
        height=st.integers(1, 8192),
        width=st.integers(1, 8192),
        mean=st.tuples(numbers, numbers, numbers),
        std=st.tuples(*[st.floats(1e-6, 1e6)] * 3),
        resize=st.sampled_from(RESIZES),
        crop_fraction=st.floats(0.1, 1.0),
        interpolation=st.sampled_from(INTERPOLATIONS),
    )
    def test_json_round_trip(self, **values) -> None:
        p = Preprocessing(**values)
        assert Preprocessing.from_json(json.loads(json.dumps(p.to_json()))) == p

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("height", 0),
            ("height", -32),
            ("height", 8193),
            ("width", 32.0),
            ("width", "32"),
            ("width", True),
            ("mean", (0.5, 0.5)),
            ("mean", 0.5),
            ("mean", (0.5, float("nan"), 0.5)),
            ("mean", (10**400, 0, 0)),
            ("mean", ("0.5",) * 3),
            ("std", (0.5, 0.0, 0.5)),
            ("std", (0.5, -1.0, 0.5)),
            ("std", (0.5, 1e-300, 0.5)),
            ("crop_fraction", 0),
            ("crop_fraction", 1.01),
            ("crop_fraction", float("nan")),
            ("crop_fraction", None),
            ("resize", "squash"),
            ("resize", []),
            ("interpolation", "lanczos"),
        ],
    )
    def test_impossible_values(self, field, value) -> None:
        with pytest.raises(SpecError, match=rf"preprocessing {field}: got .*, expected .* Correct"):
            Preprocessing(**{field: value})
        with pytest.raises(SpecError):
            Preprocessing.from_json(Preprocessing().to_json() | {field: value})

    @pytest.mark.parametrize("data", [None, [], "x", {}, {"height": 32}])
    def test_json_that_is_no_preprocessing(self, data) -> None:
        with pytest.raises(SpecError, match=r"preprocessing keys: got"):
            Preprocessing.from_json(data)

    def test_json_with_an_unknown_key(self) -> None:
        with pytest.raises(SpecError, match=r"preprocessing keys: got .*gamma"):
            Preprocessing.from_json(Preprocessing().to_json() | {"gamma": 2.2})

    def test_frozen_and_keyword_only(self) -> None:
        with pytest.raises(dataclasses.FrozenInstanceError):
            Preprocessing().height = 1  # type: ignore[misc]
        with pytest.raises(TypeError):
            Preprocessing(224)  # type: ignore[misc]

    def test_from_timm(self) -> None:
        args = {
            "input_size": [3, 96, 64],
            "mean": [0.3, 0.3, 0.3],
            "std": [0.35, 0.35, 0.35],
            "crop_pct": 1.0,
            "interpolation": "bilinear",
            "crop_mode": "squash",
            "lr": 0.1,
        }
        assert Preprocessing.from_timm(args) == Preprocessing(
            height=96,
            width=64,
            mean=(0.3,) * 3,
            std=(0.35,) * 3,
            resize="stretch",
            crop_fraction=1.0,
            interpolation="bilinear",
        )

    def test_from_timm_takes_nothing_for_the_default(self) -> None:
        empty = {"input_size": None, "img_size": None, "mean": None, "std": [], "interpolation": ""}
        assert Preprocessing.from_timm(empty) == Preprocessing()
        assert Preprocessing.from_timm({"img_size": 352}).height == 352

    @pytest.mark.parametrize(
        "args",
        [
            {"input_size": [1, 32, 32]},
            {"input_size": 32},
            {"mean": [0.5]},
            {"crop_pct": 0},
            {"interpolation": "random"},
            {"crop_mode": "border"},
            {"crop_mode": ["center"]},
        ],
    )
    def test_from_timm_refuses(self, args) -> None:
        with pytest.raises(SpecError, match=r"preprocessing "):
            Preprocessing.from_timm(args)


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")


class TestFindImages:
    def test_sorted_recursive_by_extension(self, tmp_path) -> None:
        wanted = ["a/2.png", "a/10.JPG", "b/c/x.jpeg", "z.webp", "a.png"]
        touch(tmp_path, *wanted, "notes.txt", "a/labels", "png", ".hidden.png", ".git/x.png")
        expected = ["a/10.JPG", "a/2.png", "a.png", "b/c/x.jpeg", "z.webp"]
        assert find_images([tmp_path]) == [tmp_path / name for name in expected]

    def test_every_suffix(self, tmp_path) -> None:
        touch(tmp_path, *(f"a{suffix}" for suffix in IMAGE_SUFFIXES))
        assert {path.suffix for path in find_images([tmp_path])} == set(IMAGE_SUFFIXES)

    def test_given_order_any_name_no_repeats(self, tmp_path) -> None:
        touch(tmp_path, "b.png", "a.png", "scan.0001", "deep/c.png")
        given = [tmp_path / "scan.0001", str(tmp_path / "b.png"), tmp_path, tmp_path / "deep"]
        names = [path.name for path in find_images(given)]
        assert names == ["scan.0001", "b.png", "a.png", "c.png"]

    def test_links_do_not_loop(self, tmp_path) -> None:
        touch(tmp_path, "a/x.png")
        (tmp_path / "a" / "again").symlink_to(tmp_path)
        assert find_images([tmp_path]) == [tmp_path / "a/x.png"]

    def test_none(self, tmp_path) -> None:
        touch(tmp_path, "notes.txt")
        with pytest.raises(InputError, match=r"images in .*: got none, expected .*\.png.* Name an"):
            find_images([tmp_path])
        with pytest.raises(InputError, match=r"images in \(no path\): got none"):
            find_images([])

    def test_missing_names_the_path(self, tmp_path) -> None:
        touch(tmp_path, "a.png")
        with pytest.raises(InputError, match=r"images .*nope: got no such file"):
            find_images([tmp_path / "a.png", tmp_path / "nope"])

    def test_unreadable_folder(self, tmp_path, monkeypatch) -> None:
        def refuse(path: object) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(os, "scandir", refuse)  # root may read everything
        with pytest.raises(InputError, match=r"got permission denied, expected a readable"):
            find_images([tmp_path])


class TestReadLabels:
    def read(self, tmp_path: Path, content: bytes) -> tuple[str, ...]:
        (tmp_path / "labels.txt").write_bytes(content)
        return read_labels(tmp_path / "labels.txt")

    @pytest.mark.parametrize(
        "content",
        [
            "tench, Tinca\nhén\n",
            "tench, Tinca\nhén",
            "\ufefftench,\tTinca \r\n  hén\r\n\r\n\n",
        ],
    )
    def test_one_a_line(self, tmp_path, content) -> None:
        assert self.read(tmp_path, content.encode()) == ("tench, Tinca", "hén")

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"", "got no line"),
            (b"\n \n", "got no line"),
            (b"a\n\nb\n", "line 2: got ''"),
            (b"a\nb\x1b[2Jc\n", r"line 2: got 'b\\x1b"),
            (b"a\n\xff\xfe\n", r"not UTF-8 \(at 2\)"),
            (b"a\n" * (8 * 2**20 + 1), "got more than 16777216 bytes"),
        ],
        ids=["empty", "blank", "gap", "control", "latin", "huge"],
    )
    def test_refused(self, tmp_path, content, message) -> None:
        with pytest.raises(InputError, match=rf"labels .*labels\.txt.*{message}.*, expected"):
            self.read(tmp_path, content)

    def test_missing_or_folder(self, tmp_path) -> None:
        with pytest.raises(InputError, match=r"got no such file"):
            read_labels(tmp_path / "labels.txt")
        with pytest.raises(InputError, match=r"got a folder"):
            read_labels(tmp_path)
