"""DLPack both ways: layouts, lifetimes, devices."""

from __future__ import annotations

import ctypes
import gc
import importlib.util
import sys
import weakref
from collections.abc import Callable

import numpy as np
import pytest
import torch

from parnet_deploy.errors import InputError, MissingExtraError
from parnet_deploy.runtime.arrays import dlpack
from parnet_deploy.runtime.arrays.device_array import DeviceArray

VALUES = np.arange(24, dtype=np.float32).reshape(2, 3, 4)


class Memory:
    """Host memory of its own, whose end can be seen."""

    def __init__(self) -> None:
        self.memory = (ctypes.c_float * VALUES.size)(*VALUES.flat)
        self.address = ctypes.addressof(self.memory)


def on_host(**more) -> tuple[DeviceArray, weakref.ref]:
    memory = Memory()
    about = {"address": memory.address, "shape": VALUES.shape, "device": None, "stream": None}
    return DeviceArray(owner=memory, **{**about, **more}), weakref.ref(memory)


def on_gpu(**more) -> DeviceArray:
    """No such memory exists: nobody may look at it."""
    about = {"address": 1 << 40, "shape": (1, 3, 2, 2), "device": 1, "stream": 0x50, "owner": None}
    return DeviceArray(**{**about, **more})


CONSUMERS: dict[str, Callable] = {"numpy": np.from_dlpack, "torch": torch.from_dlpack}


@pytest.mark.parametrize("consumer", CONSUMERS.values(), ids=CONSUMERS.keys())
class TestLifetimes:
    def test_the_memory_is_shared_and_lives_on_without_our_handle(self, consumer):
        ours, alive = on_host()
        theirs = consumer(ours)
        ours_address = ours.address
        del ours
        gc.collect()
        assert alive() is not None
        np.testing.assert_array_equal(np.asarray(theirs), VALUES)
        pointer = theirs.data_ptr() if hasattr(theirs, "data_ptr") else theirs.ctypes.data
        assert pointer == ours_address

    def test_it_is_let_go_with_the_last_of_them(self, consumer):
        ours, alive = on_host()
        ended = []
        weakref.finalize(ours.owner, ended.append, 1)
        first, second = consumer(ours), consumer(ours)
        del ours, first
        gc.collect()
        assert alive() is not None
        del second
        gc.collect()
        assert alive() is None
        assert ended == [1]

    def test_an_exception_on_its_way_is_not_lost(self, consumer):
        """The deleter runs while the interpreter unwinds; in Python code it would eat the error."""
        ours, alive = on_host()

        def fail() -> None:
            raise KeyError("mine")

        owned = [ours]
        del ours
        with pytest.raises(KeyError, match="mine"):
            (consumer(owned.pop()), fail())
        gc.collect()
        assert alive() is None


@pytest.mark.parametrize("version", [None, (0, 8), (1, 0), (1, 3)])
def test_a_capsule_that_nobody_takes_lets_go(version):
    ours, alive = on_host()
    capsule = ours.__dlpack__(max_version=version)
    assert ("versioned" in repr(capsule)) == (version is not None and version >= (1, 0))
    del ours
    assert alive() is not None
    del capsule
    assert alive() is None


@pytest.mark.parametrize("version", [None, (1, 0)])
def test_reading_what_was_written(version):
    ours = on_gpu()
    capsule = ours.__dlpack__(stream=0x50, max_version=version)
    found = dlpack.read_capsule(capsule)
    assert (found.address, found.shape, found.device) == (1 << 40, (1, 3, 2, 2), (dlpack.CUDA, 1))
    assert found.dtype == (dlpack.FLOAT, 32, 1)
    assert found.strides in (None, (12, 4, 2, 1))
    assert found.read_only is False
    assert found.owner is capsule


def test_reading_others():
    x = np.arange(12, dtype=np.float64).reshape(3, 4).T
    found = dlpack.read_capsule(x.__dlpack__())
    assert (found.shape, found.strides, found.dtype) == ((4, 3), (1, 4), (dlpack.FLOAT, 64, 1))
    assert found.address == x.ctypes.data
    tensor = torch.arange(8, dtype=torch.int32)[3:]
    found = dlpack.read_capsule(tensor.__dlpack__())
    assert (found.address, found.shape) == (tensor.data_ptr(), (5,))
    assert found.dtype == (0, 32, 1)
    assert found.device == (dlpack.CPU, 0)


def test_read_only_is_told_by_the_newer_layout():
    x = VALUES.copy()
    x.flags.writeable = False
    assert dlpack.read_capsule(x.__dlpack__(max_version=(1, 0))).read_only is True


def test_a_capsule_keeps_its_producer_alive_and_is_not_consumed():
    ours, alive = on_host()
    found = dlpack.read_capsule(ours.__dlpack__())
    del ours
    assert alive() is not None
    del found
    assert alive() is None


def test_a_consumed_capsule_and_none_at_all():
    capsule = VALUES.copy().__dlpack__()
    torch.utils.dlpack.from_dlpack(capsule)
    for bad in (capsule, None, "dltensor"):
        with pytest.raises(InputError, match="expected a DLPack capsule that nobody has consumed"):
            dlpack.read_capsule(bad)


def test_a_layout_to_come_is_not_read():
    capsule = VALUES.copy().__dlpack__(max_version=(1, 0))
    get = ctypes.pythonapi.PyCapsule_GetPointer
    managed = ctypes.c_uint32.from_address(get(capsule, b"dltensor_versioned"))
    managed.value = 2
    with pytest.raises(InputError, match=r"got DLPack version 2\.\d, expected 1\.x"):
        dlpack.read_capsule(capsule)
    managed.value = 1


class TestDeviceArray:
    def test_the_cuda_interface(self):
        about = on_gpu().__cuda_array_interface__
        assert about == {
            "version": 3,
            "shape": (1, 3, 2, 2),
            "typestr": "<f4",
            "data": (1 << 40, False),
            "strides": None,
            "stream": 0x50,
        }
        assert on_gpu(stream=0).__cuda_array_interface__["stream"] == 1
        assert on_gpu(stream=None).__cuda_array_interface__["stream"] is None
        assert not hasattr(on_host()[0], "__cuda_array_interface__")

    def test_facts(self):
        assert on_gpu().__dlpack_device__() == (2, 1)
        assert on_host()[0].__dlpack_device__() == (1, 0)
        assert on_gpu().nbytes == 48
        assert "on CUDA device 1, at 0x10000000000" in repr(on_gpu())

    def test_consumers_are_ordered_before_they_read(self):
        waited: list[int] = []
        ours = on_gpu(order=waited.append)
        ours.__dlpack__(stream=0x77)
        ours.__dlpack__()
        ours.__dlpack__(stream=-1)
        assert waited == [0x77, 1]
        with pytest.raises(BufferError, match=r"got stream 0, expected 1 \(legacy default\)"):
            ours.__dlpack__(stream=0)

    def test_what_cannot_be_ordered_is_refused(self):
        with pytest.raises(BufferError, match="got stream 0x77, expected 0x50, in which it is"):
            on_gpu().__dlpack__(stream=0x77)
        on_gpu(stream=None).__dlpack__(stream=0x77)
        on_gpu(stream=0).__dlpack__(stream=1)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"stream": 1}, "on the host, where there are no streams"),
            ({"dl_device": (2, 0)}, r"it is on device \(1, 0\), not \(2, 0\)"),
            ({"copy": True}, "it is not copied here"),
        ],
    )
    def test_what_it_cannot_do(self, options, message):
        ours, _ = on_host()
        with pytest.raises(BufferError, match=message):
            ours.__dlpack__(**options)
        ours.__dlpack__(dl_device=(1, 0), copy=False)

    def test_torch_refuses_a_device_that_is_not_there_and_nothing_leaks(self):
        if torch.cuda.is_available():
            pytest.skip("needs a machine without a GPU")
        memory = Memory()
        alive = weakref.ref(memory)
        ours = on_gpu(owner=memory, stream=None)
        del memory
        with pytest.raises(Exception, match=r".+"):
            torch.from_dlpack(ours)
        with pytest.raises(RuntimeError, match="Unsupported device"):
            np.from_dlpack(ours)
        del ours
        gc.collect()
        assert alive() is None

    def test_pycuda(self, monkeypatch):
        made = []

        class GPUArray:
            def __init__(self, shape, dtype, gpudata=None, base=None) -> None:
                made.append((shape, np.dtype(dtype), gpudata, base))

        ours = on_gpu()
        module = type("gpuarray", (), {"GPUArray": GPUArray})
        monkeypatch.setitem(sys.modules, "pycuda", type("pycuda", (), {}))
        monkeypatch.setitem(sys.modules, "pycuda.gpuarray", module)
        assert isinstance(ours.to_gpuarray(), GPUArray)
        assert made == [((1, 3, 2, 2), np.dtype(np.float32), 1 << 40, ours)]
        with pytest.raises(InputError, match="got host memory, expected a CUDA device"):
            on_host()[0].to_gpuarray()

    def test_pycuda_is_not_installed(self):
        if importlib.util.find_spec("pycuda") is not None:
            pytest.skip("needs a machine without pycuda")
        with pytest.raises(MissingExtraError, match=r"pip install 'parnet-deploy\[pycuda\]'"):
            on_gpu().to_gpuarray()


def test_a_numpy_from_before_the_versions(monkeypatch):
    """Then the consumer gets the old layout, which it has to read as well."""
    monkeypatch.setattr(dlpack, "_NUMPY_HAS_VERSIONS", False)
    capsule = on_gpu().__dlpack__(stream=-1, max_version=(1, 0))
    assert "versioned" not in repr(capsule)
    assert dlpack.read_capsule(capsule).device == (2, 1)
