"""What callers may hand in."""

from __future__ import annotations

import numpy as np
import pytest

from parnet_deploy.errors import InputError, SpecError
from parnet_deploy.input_size import InputSize
from parnet_deploy.runtime.arrays.inputs import (
    as_images,
    check_address,
    check_count,
    check_shape,
    check_stream,
)

GOOD = np.zeros((2, 3, 4, 4), np.float32)


class Foreign:
    """An array of another library, by its DLPack device."""

    def __init__(self, device: int, error: Exception | None = None) -> None:
        self.device, self.error = device, error

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device, 0

    def __dlpack__(self, **options: object):
        if self.error is not None:
            raise self.error
        return GOOD.__dlpack__()


class Nowhere(Foreign):
    def __dlpack_device__(self) -> tuple[int, int]:
        raise ValueError("unknown device type meta")


class CudaOnly:
    __cuda_array_interface__ = {"shape": (1,)}  # noqa: RUF012  as numba and pycuda have it


class Lazy(Foreign):
    """A tensor of torch with a bit that says that its values are not what its memory holds."""

    def __init__(self, bit: str) -> None:
        super().__init__(1)
        self.bit = bit

    def is_neg(self) -> bool:
        return self.bit == "neg"

    def is_conj(self) -> bool:
        return self.bit == "conj"


def test_a_good_array_is_used_in_place():
    assert as_images(GOOD, 3) is GOOD
    shared = as_images(Foreign(1), 3)
    assert np.shares_memory(shared, GOOD)


def test_a_torch_tensor_without_such_a_bit_is_used_in_place():
    assert np.shares_memory(as_images(Lazy(""), 3), GOOD)


def test_read_only_arrays_are_fine():
    x = GOOD.copy()
    x.flags.writeable = False
    assert as_images(x, 3) is x


@pytest.mark.parametrize(
    "x",
    [
        np.asfortranarray(np.random.default_rng(0).random((2, 3, 4, 4), np.float32)),
        np.random.default_rng(0).random((2, 4, 4, 3), np.float32).transpose(0, 3, 1, 2),
        np.random.default_rng(0).random((4, 3, 4, 4), np.float32)[::2],
        np.random.default_rng(0).random((2, 3, 4, 4), np.float32)[..., ::-1],
        np.frombuffer(bytes(1 + 4 * 96), np.uint8)[1:].view(np.float32).reshape(2, 3, 4, 4),
    ],
    ids=["fortran", "channels last", "every second", "mirrored", "unaligned"],
)
def test_other_strides_are_copied(x):
    images = as_images(x, 3)
    assert images.flags.c_contiguous
    assert images.flags.aligned
    np.testing.assert_array_equal(images, x)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (GOOD.astype(np.float64), r"got dtype float64, expected float32.*astype\(np.float32\)"),
        (GOOD.astype(np.uint8), "got dtype uint8"),
        (GOOD.astype(np.float16), "got dtype float16"),
        (GOOD.astype(">f4"), "got dtype >f4, expected float32 in native byte order"),
        (np.array([[object()]]), "got dtype object"),
        (GOOD[0], r"got shape \(3, 4, 4\), expected \(N, 3, H, W\).*x\[np.newaxis\]"),
        (GOOD.transpose(0, 2, 3, 1), r"got shape \(2, 4, 4, 3\).*channels first"),
        (np.float32(1), "got a float32, expected a numpy array"),
        ([[1.0]], "got a list, expected a numpy array or a DLPack object"),
        (None, "got a NoneType"),
        (Foreign(2), r"got a CUDA array, expected host memory.*x.cpu\(\)"),
        (CudaOnly(), "got a CUDA array"),
        (Foreign(10), "got memory of DLPack device type 10"),
        (Nowhere(0), "cannot read this Nowhere: unknown device type meta"),
        (Foreign(1, BufferError("requires grad")), "cannot read this Foreign: requires grad"),
        (Lazy("neg"), r"got a Lazy with the neg bit.*Call resolve_neg\(\) on it"),
        (Lazy("conj"), r"got a Lazy with the conj bit.*Call resolve_conj\(\) on it"),
        (Foreign(1, RuntimeError("conjugated")), "cannot read this Foreign: conjugated"),
    ],
)
def test_anything_else_is_refused(x, message):
    with pytest.raises(InputError, match=message):
        as_images(x, 3)


def test_addresses():
    assert check_address("in_ptr", np.int64(64)) == 64
    for bad, message in (
        (0, "in_ptr: got address 0x0"),
        (6, "a multiple of 4"),
        (-4, "not null"),
        (1 << 64, r"below 2\*\*64"),
    ):
        with pytest.raises(InputError, match=message):
            check_address("in_ptr", bad)
    with pytest.raises(InputError, match=r"in_ptr: got 1.5, expected an integer"):
        check_address("in_ptr", 1.5)


def test_shapes():
    fixed, several = InputSize.parse("32x64"), InputSize.parse("32:64")
    assert check_shape(np.int32(2), (4, 4), fixed) == (2, 4, 4)
    assert check_shape(1, None, fixed) == (1, 32, 64)
    with pytest.raises(InputError, match=r"size: got None, expected \(height, width\) in 32x32:64"):
        check_shape(1, None, several)
    for n, size, message in (
        ("2", (4, 4), "n: got '2'"),
        (1, (4.0, 4), "height: got 4.0"),
        (1, (4, None), "width: got None"),
        (1, 4, r"size: got 4, expected \(height, width\)"),
        (1, (4, 4, 4), "size: got"),
    ):
        with pytest.raises(InputError, match=message):
            check_shape(n, size, fixed)


def test_streams():
    assert check_stream(np.int64(0)) == 0
    for bad in ("x", None, 1.5, -1, 1 << 64):
        with pytest.raises(InputError, match="stream: got"):
            check_stream(bad)


@pytest.mark.parametrize("bad", [0, -1, 1025, 2**40, True, 1.5, "4", None])
def test_counts(bad):
    check_count("slots", 1024)
    with pytest.raises(SpecError, match=r"slots: got .*, expected"):
        check_count("slots", bad)
