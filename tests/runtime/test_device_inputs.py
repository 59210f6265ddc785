"""Batches on a GPU: every protocol, what is waited for, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from parnet_deploy.errors import InputError
from parnet_deploy.runtime.arrays import dlpack
from parnet_deploy.runtime.arrays.device_inputs import Source, as_source, device_of, stream_handle

ADDRESS = 1 << 40
SHAPE = (2, 3, 4, 8)
DENSE = (96, 32, 8, 1)
READER = 0x99


def locate(address: int) -> tuple[int | None, bool]:
    """A driver that knows device 2, above 2**40."""
    return (2, True) if address >= ADDRESS else (None, False)


class Exporter:
    """An array of another library on a GPU, by DLPack. Its memory does not exist."""

    def __init__(self, shape=SHAPE, kind=2, named=None, address=ADDRESS, old=False) -> None:
        self.kind, self.shape, self.address, self.old = kind, shape, address, old
        self.named = kind if named is None else named
        self.asked: list = []
        self.strides: tuple[int, ...] | None = None
        self.dtype: tuple[int, int, int] | None = None

    def __dlpack_device__(self) -> tuple[int, int]:
        return (self.named, 1)

    def __dlpack__(self, **options: object) -> object:
        self.asked.append(options)
        if self.old and "max_version" in options:
            raise TypeError("unexpected keyword argument max_version")
        device = (self.kind, 1)
        capsule = dlpack.make_capsule(ADDRESS, self.shape, self, device=device)
        tensor = dlpack._Tensor.from_address(dlpack._pointer(capsule, b"dltensor"))
        tensor.data = self.address
        if self.strides is not None:
            for i, stride in enumerate(self.strides):
                tensor.strides[i] = stride
        if self.dtype is not None:
            tensor.dtype.code, tensor.dtype.bits, tensor.dtype.lanes = self.dtype
        return capsule


class Interface:
    """An array of another library on a GPU, by the CUDA Array Interface."""

    def __init__(self, **more: object) -> None:
        about = {"shape": SHAPE, "typestr": "<f4", "data": (ADDRESS, False), "version": 3}
        self.__cuda_array_interface__ = {**about, **more}


def source(x: object, **more) -> Source:
    return as_source(x, 3, locate=locate, **{"reader": READER, **more})


class TestHost:
    def test_numpy_in_place(self):
        x = np.zeros((2, 3, 4, 8), np.float32)
        found = source(x)
        assert (found.address, found.shape) == (x.ctypes.data, (2, 4, 8))
        assert (found.device, found.stream) == (None, None)
        assert found.owner is x

    def test_torch_on_the_cpu_in_place(self):
        x = torch.zeros(2, 3, 4, 8)
        found = source(x)
        assert (found.address, found.device) == (x.data_ptr(), None)

    def test_other_strides_are_copied_and_the_copy_is_kept(self):
        x = torch.arange(192.0).reshape(2, 4, 8, 3).permute(0, 3, 1, 2)
        found = source(x)
        assert found.address != x.data_ptr()
        np.testing.assert_array_equal(found.owner, x.numpy())

    def test_what_numpy_refuses(self):
        for x, message in (
            (np.zeros(SHAPE), "got dtype float64"),
            (torch.zeros(SHAPE, requires_grad=True), "cannot read this Tensor"),
            ([[1.0]], "got a list"),
        ):
            with pytest.raises(InputError, match=message):
                source(x)

    def test_host_memory_that_a_stream_of_the_caller_fills(self):
        assert source(np.zeros(SHAPE, np.float32), stream=0x30).stream == 0x30


class TestDlpack:
    @pytest.mark.parametrize("kind", [dlpack.CUDA, dlpack.CUDA_MANAGED])
    def test_in_place_behind_the_producer(self, kind):
        x = Exporter(kind=kind)
        found = source(x)
        assert (found.address, found.shape, found.device) == (ADDRESS, (2, 4, 8), 1)
        assert found.stream is None, "the producer has ordered its work before the reader"
        assert x.asked == [{"stream": READER, "max_version": (1, 0)}]

    def test_the_owner_is_kept(self):
        found = source(Exporter())
        assert dlpack.read_capsule(found.owner).address == ADDRESS

    def test_a_producer_from_before_the_versions(self):
        x = Exporter(old=True)
        assert source(x).address == ADDRESS
        assert x.asked[1] == {"stream": READER}

    def test_a_reader_that_is_not_known_yet(self):
        """Both meet in the legacy default stream."""
        x = Exporter()
        assert source(x, reader=None).stream == 1
        assert x.asked[0]["stream"] == 1

    def test_the_callers_stream_takes_the_place_of_the_producers(self):
        x = Exporter()
        assert source(x, stream=0x30).stream == 0x30
        assert x.asked[0]["stream"] == -1

    def test_strides_of_single_elements_do_not_matter(self):
        x = Exporter((1, 3, 1, 8))
        x.strides = (777, 8, 555, 1)
        assert source(x).shape == (1, 1, 8)

    @pytest.mark.parametrize(
        ("strides", "dtype", "shape", "address", "message"),
        [
            ((96, 1, 24, 3), None, SHAPE, ADDRESS, r"got strides \(96, 1, 24, 3\) .*x.contiguous"),
            (None, (2, 64, 1), SHAPE, ADDRESS, "got DLPack dtype code 2, 64 bits, 1 lane"),
            (None, (4, 16, 1), SHAPE, ADDRESS, "got DLPack dtype code 4, 16 bits"),
            (None, (2, 32, 4), SHAPE, ADDRESS, "32 bits, 4 lane"),
            (None, None, SHAPE[1:], ADDRESS, r"got shape \(3, 4, 8\), expected \(N, 3, H, W\)"),
            (None, None, (2, 4, 4, 8), ADDRESS, r"got shape \(2, 4, 4, 8\)"),
            (None, None, (0, 3, 4, 8), ADDRESS, r"got shape \(0, 3, 4, 8\), expected one with el"),
            (None, None, SHAPE, 0, "input: got address 0x0"),
            (None, None, SHAPE, ADDRESS + 2, "a multiple of 4"),
        ],
    )
    def test_refused(self, strides, dtype, shape, address, message):
        x = Exporter(shape, address=address)
        x.strides, x.dtype = strides, dtype
        with pytest.raises(InputError, match=message):
            source(x)

    def test_a_producer_that_contradicts_itself(self):
        with pytest.raises(InputError, match="got memory of DLPack device type 1, expected 2"):
            source(Exporter(kind=1, named=2))

    def test_another_vendors_device(self):
        with pytest.raises(InputError, match="got memory of DLPack device type 10"):
            source(Exporter(kind=10))

    def test_bits_and_errors_of_the_producer(self):
        class Negated(Exporter):
            def is_neg(self) -> bool:
                return True

        class Attached(Exporter):
            def __dlpack__(self, **options: object) -> object:
                raise BufferError("requires grad")

        class Nowhere(Exporter):
            def __dlpack_device__(self) -> tuple[int, int]:
                raise ValueError("unknown device type meta.")

        for x, message in (
            (Negated(), "got a Negated with the neg bit"),
            (Attached(), "cannot read this Attached: requires grad. Expected dense float32"),
            (Nowhere(), "cannot read this Nowhere: unknown device type meta. Exp"),
        ):
            with pytest.raises(InputError, match=message):
                source(x)


class TestInterface:
    def test_in_place(self):
        x = Interface(strides=None, stream=0x70)
        found = source(x)
        assert (found.address, found.shape, found.device) == (ADDRESS, (2, 4, 8), 2)
        assert found.stream == 0x70
        assert found.owner is x

    def test_read_only_and_dense_strides_are_fine(self):
        strides = tuple(4 * stride for stride in DENSE)
        assert source(Interface(strides=strides, data=(ADDRESS, True))).address == ADDRESS

    @pytest.mark.parametrize(
        ("about", "given", "waits"),
        [
            ({}, None, 1),
            ({"stream": None}, None, 1),
            ({"stream": 2}, None, 2),
            ({"stream": 0x70}, None, 0x70),
            ({"stream": 0x70}, 0x30, 0x30),
            ({"stream": None}, 0x30, 0x30),
            ({"stream": 0x70, "version": 2}, None, 1),
        ],
    )
    def test_which_stream_is_waited_for(self, about, given, waits):
        assert source(Interface(**about), stream=given).stream == waits

    @pytest.mark.parametrize(
        ("about", "message"),
        [
            ({"version": 1}, "version 1, expected 2 or 3"),
            ({"version": 4}, "version 4"),
            ({"typestr": "<f8"}, "got dtype <f8, expected <f4"),
            ({"typestr": ">f4"}, "got dtype >f4"),
            ({"shape": (3, 4, 8)}, r"got shape \(3, 4, 8\)"),
            ({"shape": (2, 3, 0, 8)}, "expected one with elements"),
            ({"shape": (2, 3, 4.0, 8)}, "cannot read this Interface"),
            ({"shape": None}, "cannot read this Interface"),
            ({"data": (0, False)}, "got address 0x0"),
            ({"data": (ADDRESS + 1, False)}, "multiple of 4"),
            ({"data": (4096, False)}, "got address 0x1000 .* memory of no CUDA device"),
            ({"data": ADDRESS}, "cannot read this Interface"),
            ({"mask": object()}, "got a masked array"),
            ({"stream": 0}, "got stream 0 in __cuda_array_interface__"),
            ({"stream": -1}, "stream: got -0x1"),
            ({"strides": (384, 4, 96, 12)}, r"got strides \(384, 4, 96, 12\)"),
            ({"strides": (-384, 128, 32, 4)}, "got strides"),
        ],
    )
    def test_refused(self, about, message):
        with pytest.raises(InputError, match=message):
            source(Interface(**about))

    def test_a_key_is_missing(self):
        x = Interface()
        del x.__cuda_array_interface__["typestr"]
        with pytest.raises(InputError, match="cannot read this Interface: 'typestr'"):
            source(x)

    def test_dlpack_comes_first(self):
        x = Exporter()
        x.__cuda_array_interface__ = {"version": 0}
        assert source(x).device == 1


def test_where_an_array_is():
    assert device_of(Exporter()) == 1
    assert device_of(np.zeros(1)) is None
    assert device_of(torch.zeros(1)) is None
    assert device_of(Interface()) is None
    assert device_of(Exporter(kind=10)) is None


class TestStreams:
    class Torch:
        cuda_stream = 0x11

    class Cupy:
        ptr = 0x22

    class PyCuda:
        handle = 0x33

    class Handle:
        """A handle type with no index, as in cuda.bindings before it had the protocol."""

        def __int__(self) -> int:
            return 0x44

    class Core:
        """cuda.core: the protocol, and a handle that is an object of its own."""

        handle = object()

        def __cuda_stream__(self) -> tuple[int, int]:
            return (0, 0x55)

    @pytest.mark.parametrize(
        ("stream", "handle"),
        [
            (0, 0),
            (np.int64(7), 7),
            (Torch(), 0x11),
            (Cupy(), 0x22),
            (PyCuda(), 0x33),
            (Handle(), 0x44),
            (Core(), 0x55),
        ],
    )
    def test_every_kind(self, stream, handle):
        assert stream_handle(stream) == handle

    @pytest.mark.parametrize("bad", [None, True, 1.5, np.float32(1), "7", b"7", object(), [1]])
    def test_anything_else(self, bad):
        with pytest.raises(InputError, match=r"stream: got a .*, expected an integer .*\.handle"):
            stream_handle(bad)

    def test_a_handle_that_is_none(self):
        broken = type("Broken", (), {"handle": None})()
        with pytest.raises(InputError, match="stream: got a Broken, expected"):
            stream_handle(broken)

    @pytest.mark.parametrize("answer", [(1, 5), 5, (0,), None])
    def test_a_protocol_to_come(self, answer):
        future = type("Future", (), {"__cuda_stream__": lambda self: answer})()
        with pytest.raises(InputError, match=r"from Future.__cuda_stream__\(\), expected \(0, h"):
            stream_handle(future)

    def test_out_of_range(self):
        with pytest.raises(InputError, match="expected a raw handle from 0"):
            stream_handle(1 << 64)

    def test_cuda_bindings(self):
        driver = pytest.importorskip("cuda.bindings.driver")
        assert stream_handle(driver.CUstream(0x66)) == 0x66
