"""Arrays on a real GPU, in and out: torch, cupy, pycuda where they are installed."""

from __future__ import annotations

import numpy as np
import pytest

from parnet_deploy.errors import InputError
from parnet_deploy.runtime.arrays.device_array import DeviceArray
from parnet_deploy.runtime.arrays.device_inputs import as_source, device_of, stream_handle

pytestmark = pytest.mark.gpu
SHAPE = (2, 3, 4, 8)


@pytest.fixture(scope="module")
def torch():
    module = pytest.importorskip("torch")
    if not module.cuda.is_available():
        pytest.skip("needs a torch with CUDA")
    return module


def locate(address: int) -> tuple[int | None, bool]:
    """Ask the real driver, as the CUDA layer does."""
    driver = pytest.importorskip("cuda.bindings.driver")
    attribute = driver.CUpointer_attribute.CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL
    status, ordinal = driver.cuPointerGetAttribute(attribute, address)
    return (int(ordinal), True) if int(status) == 0 and int(ordinal) >= 0 else (None, False)


class TestTorch:
    def test_in_place_on_any_stream(self, torch):
        x = torch.rand(SHAPE, device="cuda")
        reader = torch.cuda.Stream()
        found = as_source(x, 3, locate=locate, reader=reader.cuda_stream)
        assert (found.address, found.shape) == (x.data_ptr(), (2, 4, 8))
        assert (found.device, found.stream) == (x.device.index, None)
        assert device_of(x) == x.device.index

    def test_the_interface_says_the_same(self, torch):
        x = torch.rand(SHAPE, device="cuda")
        holder = type("Holder", (), {})()
        holder.__cuda_array_interface__ = x.__cuda_array_interface__
        found = as_source(holder, 3, locate=locate)
        assert (found.address, found.device) == (x.data_ptr(), x.device.index)

    def test_the_reader_waits_for_the_producer(self, torch):
        """The values are written behind a long kernel, in a stream of their own."""
        reader, writer = torch.cuda.Stream(), torch.cuda.Stream()
        big = torch.rand(4096, 4096, device="cuda")
        x, copy = torch.zeros(SHAPE, device="cuda"), torch.empty(SHAPE, device="cuda")
        torch.cuda.synchronize()
        with torch.cuda.stream(writer):
            for _ in range(20):
                big = big @ big * 0
            x += 1 + big[0, 0]
            found = as_source(x, 3, locate=locate, reader=stream_handle(reader))
        with torch.cuda.stream(reader):
            copy.copy_(x)
        torch.cuda.synchronize()
        assert found.stream is None
        assert bool((copy == 1).all())

    @pytest.mark.parametrize("how", ["half", "permuted", "attached", "three axes"])
    def test_refused(self, torch, how):
        x = torch.rand(SHAPE, device="cuda")
        x = {
            "half": lambda: x.half(),
            "permuted": lambda: x.to(memory_format=torch.channels_last),
            "attached": lambda: x.requires_grad_(),
            "three axes": lambda: x[0],
        }[how]()
        with pytest.raises(InputError):
            as_source(x, 3, locate=locate)

    @pytest.mark.parametrize("version", [None, (1, 0)])
    def test_out(self, torch, version):
        owner = torch.arange(24.0, device="cuda").reshape(2, 3, 4)
        stream = torch.cuda.current_stream().cuda_stream
        ours = DeviceArray(
            address=owner.data_ptr(), shape=(2, 3, 4), device=0, stream=stream, owner=owner
        )
        capsule = ours.__dlpack__(stream=stream or 1, max_version=version)
        theirs = torch.utils.dlpack.from_dlpack(capsule)
        del capsule, ours
        assert theirs.data_ptr() == owner.data_ptr()
        assert bool((theirs == owner).all())
        assert theirs.device.index == 0


def test_cupy(torch):
    cupy = pytest.importorskip("cupy")
    x = cupy.random.rand(*SHAPE).astype(cupy.float32)
    assert as_source(x, 3, locate=locate).address == x.data.ptr
    assert stream_handle(cupy.cuda.Stream(non_blocking=True)) > 0
    ours = DeviceArray(address=x.data.ptr, shape=SHAPE, device=0, stream=None, owner=x)
    assert bool((cupy.from_dlpack(ours) == x).all())
    assert bool((cupy.asarray(ours) == x).all())


def test_pycuda():
    driver = pytest.importorskip("pycuda.driver")
    gpuarray = pytest.importorskip("pycuda.gpuarray")
    pytest.importorskip("pycuda.autoprimaryctx")
    values = np.random.default_rng(0).random(SHAPE, np.float32)
    x = gpuarray.to_gpu(values)
    found = as_source(x, 3, locate=locate, stream=driver.Stream())
    assert (found.address, found.device) == (int(x.gpudata), 0)
    assert found.stream
    ours = DeviceArray(address=int(x.gpudata), shape=SHAPE, device=0, stream=None, owner=x)
    np.testing.assert_array_equal(ours.to_gpuarray().get(), values)
