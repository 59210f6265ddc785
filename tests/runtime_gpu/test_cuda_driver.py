"""The table of errors, and what the driver says of devices and pointers."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from cuda.bindings import driver

from parnet_deploy.errors import (
    BackendError,
    DeviceLostError,
    DeviceUnavailableError,
    ExecutionError,
    OutOfMemoryError,
)
from parnet_deploy.machine.gpus import gpu_facts
from parnet_deploy.runtime.cuda.device import CudaDevice
from parnet_deploy.runtime.cuda.driver import (
    KINDS,
    CaptureFailed,
    PointerFacts,
    ask,
    error_of,
    pointer_facts,
    usable_devices,
)


@pytest.mark.parametrize(
    ("code", "kind", "words"),
    [
        (2, OutOfMemoryError, r"got CUDA_ERROR_OUT_OF_MEMORY \(out of memory\).*Lower the batch"),
        (3, DeviceUnavailableError, r"A process that was forked from one that uses CUDA cannot"),
        (100, DeviceUnavailableError, r"no CUDA-capable device.*parnet-deploy doctor"),
        (101, DeviceUnavailableError, r"invalid device ordinal"),
        (700, DeviceLostError, r"an illegal memory access.*Start the process again"),
        (719, DeviceLostError, r"unspecified launch failure"),
        (999, DeviceLostError, r"CUDA_ERROR_UNKNOWN"),
        (701, ExecutionError, r"Try again"),
        (900, CaptureFailed, r"Run it without a graph"),
        (908, CaptureFailed, r"WRONG_THREAD"),
        (400, BackendError, r"invalid resource handle.*fault of the program"),
        (1, BackendError, r"invalid argument"),
    ],
)
def test_each_class_of_error_is_named_and_says_what_to_do(cuda, code, kind, words):
    error = error_of(driver.CUresult(code), "cuSome", device=1)
    assert type(error) is kind
    assert str(error).startswith("cuSome on device 1: got CUDA_ERROR_")
    assert ", expected success. " in str(error)
    with pytest.raises(kind, match=words):
        raise error


def test_a_lost_device_is_named(cuda):
    error = error_of(driver.CUresult(710), "cuSome", device=1)
    assert isinstance(error, DeviceLostError)
    assert error.device == 1


def test_every_listed_code_exists_and_every_sticky_one_is_listed(cuda):
    known = {int(member): member.name for member in driver.CUresult}
    assert set(KINDS) <= set(known)
    lost = {code for code, kind in KINDS.items() if kind == "lost"}
    assert {700, 702, 709, 710, *range(714, 720), 999, 214, 220} <= lost
    assert not lost & {0, 1, 2, 400, 600, 704, *range(900, 909)}


def test_devices(cuda):
    cuda.reset(devices=3)
    cuda.prohibit(1)
    assert usable_devices() == (0, 2)
    with pytest.raises(DeviceUnavailableError, match="device: got 1, expected one of 0, 2"):
        CudaDevice(1)
    with pytest.raises(DeviceUnavailableError, match="device: got 7, expected one of 0, 2"):
        CudaDevice(7)
    with pytest.raises(DeviceUnavailableError, match="device: got -1"):
        CudaDevice(-1)
    assert cuda.live() == {}


def test_no_device(cuda):
    cuda.reset(devices=0)
    with pytest.raises(DeviceUnavailableError, match="cuInit: got CUDA_ERROR_NO_DEVICE"):
        usable_devices()


def test_facts_are_plain_json(cuda):
    facts = gpu_facts(1)
    facts.pop("driver")  # of this machine, if it has one
    assert json.loads(json.dumps(facts)) == {
        "ordinal": 1,
        "name": "Stand-in GPU",
        "uuid": "GPU-01112131-4151-6171-8191-a1b1c1d1e1f1",
        "compute_capability": "9.0",
        "memory_mib": 1 << 10,
        "multiprocessors": 4,
        "pci_bus": "0000:02:00.0",
        "driver_cuda": "13.0",
    }
    with pytest.raises(DeviceUnavailableError, match=r"GPU 2: .* those here \(0, 1\)"):
        gpu_facts(2)


def test_pointers(cuda):
    device, host = CudaDevice(1), np.zeros(4, np.float32)
    memory, pinned = device.allocate(16), device.allocate_host(16)
    with device.current():
        assert pointer_facts(memory.address) == PointerFacts(1, True)
        assert pointer_facts(memory.address + 8) == PointerFacts(1, True)
        assert pointer_facts(pinned.address) == PointerFacts(1, False)
        assert pointer_facts(host.ctypes.data) == PointerFacts(None, False)
    with pytest.raises(BackendError, match="INVALID_CONTEXT"):
        pointer_facts(memory.address)
    device.close()


def test_an_answer_that_the_bindings_do_not_know(cuda):
    cuda.fail("cuDeviceGetCount", 4242)
    with pytest.raises(BackendError, match=r"does not know .*4242.*pip install --upgrade"):
        ask(driver.cuDeviceGetCount)


def test_a_function_that_the_driver_does_not_have(cuda):
    with pytest.raises(BackendError, match="cuProfilerStart: the NVIDIA driver does not have it"):
        ask(driver.cuProfilerStart)


def test_without_a_driver_the_error_says_how_to_get_one():
    """In a process without the stand-in."""
    script = (
        "import ctypes\n"
        "from parnet_deploy.errors import DeviceUnavailableError\n"
        "from parnet_deploy.runtime.cuda import driver as cuda_driver\n"
        "def absent(*arguments):\n"
        "    raise RuntimeError('it can only be found via system search\\nmore')\n"
        "try:\n"
        "    ctypes.CDLL('libcuda.so.1')\n"
        "    call = absent\n"  # a machine with a driver: what cuda.bindings would raise
        "except OSError:\n"
        "    call = cuda_driver.driver.cuInit\n"
        "try:\n"
        "    cuda_driver.ask(call, 0)\n"
        "except DeviceUnavailableError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("CUDA driver: libcuda.so.1 cannot be loaded (")
    assert "Install NVIDIA's driver, and in a container start it with --gpus all." in done.stdout
    assert done.stdout.count("\n") == 1
