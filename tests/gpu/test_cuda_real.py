"""CUDA devices on a real GPU. Memsets and copies stand in for engines; torch where it is there."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

driver = pytest.importorskip("cuda.bindings.driver", reason="needs cuda-bindings")

from parnet_deploy.errors import BackendError, DeviceUnavailableError, OutOfMemoryError  # noqa: E402
from parnet_deploy.machine.gpus import gpu_facts  # noqa: E402
from parnet_deploy.runtime.cuda.device import WARM_UPS, CudaDevice, open_devices  # noqa: E402
from parnet_deploy.runtime.cuda.driver import (  # noqa: E402
    PointerFacts,
    pointer_facts,
    usable_devices,
)

pytestmark = pytest.mark.gpu

ROOT = Path(__file__).parents[2]
MIB = 1 << 20
LARGE_BYTES = 256 * MIB


def ok(result):
    """What a raw driver call gives; it must not fail."""
    assert not result[0], result[0]
    return result[-1]


def current() -> int:
    return int(ok(driver.cuCtxGetCurrent()) or 0)


def foreign_context(ordinal: int = 0):
    """A context like pycuda's make_context, current in this thread."""
    try:
        return ok(driver.cuCtxCreate(None, 0, ordinal))
    except TypeError:  # before 13: without the parameters
        return ok(driver.cuCtxCreate(0, ordinal))


def fill(device, buffer, value: float, stream, nbytes: int | None = None) -> None:
    """Enqueue: every float32 of the buffer becomes the value."""
    bits = int(np.float32(value).view(np.uint32))
    with device.current():
        ok(driver.cuMemsetD32Async(buffer.raw, bits, (nbytes or buffer.nbytes) // 4, stream.raw))


def read(device, buffer, stream) -> np.ndarray:
    result = np.empty(buffer.nbytes // 4, np.float32)
    device.download(result.ctypes.data, buffer, buffer.nbytes, stream)
    stream.synchronize()
    return result


@pytest.fixture
def device():
    before = current()
    device = CudaDevice(0)
    yield device
    device.close()
    assert current() == before, "the context of this thread was changed"


@pytest.fixture
def no_context():
    """A thread whose stack is empty, whatever other tests and libraries left current."""
    before = ok(driver.cuCtxGetCurrent())
    ok(driver.cuCtxSetCurrent(0))
    yield
    ok(driver.cuCtxSetCurrent(before))


class TestDevice:
    def test_facts(self):
        ordinal = usable_devices()[0]
        facts = gpu_facts(ordinal)
        assert json.loads(json.dumps(facts)) == facts
        assert facts["uuid"].startswith("GPU-")
        assert len(facts["uuid"]) == len("GPU-") + 36
        assert facts["memory_mib"] > 0
        assert facts["multiprocessors"] > 0
        assert float(facts["compute_capability"]) >= 5

    def test_a_device_that_is_not_there(self):
        with pytest.raises(DeviceUnavailableError, match="device: got 99, expected one of 0"):
            CudaDevice(99)

    @pytest.mark.parametrize("kind", ["none", "primary", "foreign"])
    def test_the_callers_context_is_never_changed(self, no_context, kind):
        device = CudaDevice(0)
        if kind == "primary":
            ok(driver.cuCtxPushCurrent(device.context.raw))
        elif kind == "foreign":
            foreign_context()
        before = current()
        stream, event = device.create_stream(0), device.create_event()
        buffer = device.allocate(4096)
        fill(device, buffer, 1.0, stream)
        stream.record(event)
        stream.wait(event)
        with pytest.raises(OutOfMemoryError):
            device.allocate(1 << 60)
        graph = device.capture(lambda: fill(device, buffer, 2.0, stream), stream).graph
        graph.launch(stream)
        assert (read(device, buffer, stream) == 2).all()
        graph.close()
        device.close()
        assert current() == before
        if kind == "primary":
            ok(driver.cuCtxPopCurrent())
        elif kind == "foreign":
            ok(driver.cuCtxDestroy(before))
        assert current() == 0

    def test_peers(self):
        ordinals = usable_devices()
        if len(ordinals) < 2:
            pytest.skip("needs two GPUs")
        devices = open_devices(ordinals[:2])
        one, two = (devices[ordinal] for ordinal in ordinals[:2])
        stream, event, other = one.create_stream(0), one.create_event(), two.create_stream(0)
        here, there = one.allocate(LARGE_BYTES), two.allocate(LARGE_BYTES)
        fill(one, here, 3.0, stream)
        one.copy(there, here, LARGE_BYTES, stream)
        stream.record(event)
        other.wait(event)
        assert (read(two, there, other) == 3).all()
        for opened in devices.values():
            opened.close()


class TestStreams:
    def test_priorities_fall_with_the_rank(self, device):
        with device.current():
            priorities = [
                ok(driver.cuStreamGetPriority(device.create_stream(0, rank).raw))
                for rank in range(8)
            ]
            least, greatest = driver.cuCtxGetStreamPriorityRange()[1:]
        assert priorities[0] == greatest
        assert priorities == sorted(priorities)
        assert priorities[-1] == min(greatest + 7, least)

    def test_an_event_orders_two_streams(self, device):
        slow, fast, event = device.create_stream(0), device.create_stream(1), device.create_event()
        source, target = device.allocate(LARGE_BYTES), device.allocate(LARGE_BYTES)
        for value in range(1, 6):
            for _ in range(4):
                fill(device, source, 100.0, slow)
            fill(device, source, value, slow)
            slow.record(event)
            fast.wait(event)
            device.copy(target, source, LARGE_BYTES, fast)
            fast.record(event)
            slow.wait(event)
            assert (read(device, target, fast) == value).all()

    def test_the_interpreter_runs_while_a_stream_is_waited_for(self, device):
        stream, buffer = device.create_stream(0), device.allocate(LARGE_BYTES)
        for _ in range(2000):
            fill(device, buffer, 1.0, stream)
        waiter = threading.Thread(target=stream.synchronize)
        begin = last = time.perf_counter()
        longest = 0.0
        waiter.start()
        while waiter.is_alive():
            now = time.perf_counter()
            longest, last = max(longest, now - last), now
        assert longest < (last - begin) / 2, "this thread stood still while the other waited"

    def test_a_stream_of_a_foreign_context_both_ways(self, device, no_context):
        context = foreign_context()
        raw = ok(driver.cuStreamCreate(1))
        memory, end = ok(driver.cuMemAlloc(LARGE_BYTES)), np.zeros(8, np.float32)
        theirs, main = device.borrow_stream(int(raw)), device.create_stream(0)
        entry, buffer = device.create_event(), device.allocate(LARGE_BYTES)
        assert not theirs.launchable
        for value in (1.0, 2.0, 3.0):
            bits = int(np.float32(value).view(np.uint32))
            ok(driver.cuMemsetD32Async(memory, bits, LARGE_BYTES // 4, raw))
            theirs.record(entry)
            main.wait(entry)
            device.upload(buffer, int(memory), LARGE_BYTES, main)
            main.record(entry)
            theirs.wait(entry)
            last = buffer.address + LARGE_BYTES - end.nbytes
            ok(driver.cuMemcpyAsync(end.ctypes.data, last, end.nbytes, raw))
            ok(driver.cuStreamSynchronize(raw))
            assert (end == value).all()
            assert current() == int(context)
        entry.close()
        ok(driver.cuCtxDestroy(context))

    def test_default_streams(self, device, no_context):
        buffer = device.allocate(4096)
        for handle in (0, 1, 2):
            theirs = device.borrow_stream(handle)
            assert theirs.launchable
            fill(device, buffer, handle, theirs)
            assert (read(device, buffer, theirs) == handle).all()


class TestMemory:
    def test_pinned_copies_both_ways(self, device):
        data = np.random.default_rng(0).standard_normal(4 * MIB).astype(np.float32)
        pinned, back = device.allocate_host(data.nbytes), device.allocate_host(data.nbytes)
        buffer, stream = device.allocate(data.nbytes), device.create_stream(0)
        view(pinned)[:] = data
        device.upload(buffer, pinned.address, data.nbytes, stream)
        device.download(back.address, buffer, data.nbytes, stream)
        stream.synchronize()
        np.testing.assert_array_equal(view(back), data)

    def test_where_pointers_point(self, device):
        buffer, pinned = device.allocate(4096), device.allocate_host(4096)
        host = np.zeros(4, np.float32)
        with device.current():
            assert pointer_facts(buffer.address + 64) == PointerFacts(0, True)
            assert not pointer_facts(pinned.address).on_device
            assert pointer_facts(host.ctypes.data) == PointerFacts(None, False)

    def test_errors_are_named_and_the_device_goes_on(self, device):
        stream, buffer = device.create_stream(0), device.allocate(4096)
        with pytest.raises(OutOfMemoryError, match=r"device 0 memory: got no .* are left"):
            device.allocate(gpu_facts(0)["memory_mib"] << 21)
        with pytest.raises(BackendError, match="CUDA_ERROR_INVALID_VALUE"):
            device.upload(buffer, 0, 4096, stream)
        fill(device, buffer, 5.0, stream)
        assert (read(device, buffer, stream) == 5).all()


class Body:
    """Forks to a second stream and joins it: end = source, by way of middle."""

    def __init__(self, device, nbytes: int = 4096) -> None:
        self.device, self.nbytes, self.runs = device, nbytes, 0
        self.main, self.side = device.create_stream(0), device.create_stream(1, 1)
        self.fork, self.join = device.create_event(), device.create_event()
        self.source, self.middle, self.end = (device.allocate(nbytes) for _ in range(3))

    def __call__(self) -> None:
        self.runs += 1
        self.device.copy(self.middle, self.source, self.nbytes, self.main)
        self.main.record(self.fork)
        self.side.wait(self.fork)
        self.device.copy(self.end, self.middle, self.nbytes, self.side)
        self.side.record(self.join)
        self.main.wait(self.join)


class TestGraphs:
    def test_a_fork_and_join_is_captured_and_launched(self, device):
        body = Body(device, LARGE_BYTES)
        graph, why = device.capture(body, body.main)
        assert why == ""
        assert body.runs == WARM_UPS + 1
        assert graph.nodes == 2
        for value in range(1, 6):
            fill(device, body.source, value, body.main)
            graph.launch(body.main)
            assert (read(device, body.end, body.main) == value).all()
        graph.close()

    @pytest.mark.parametrize("mistake", ["synchronises", "does not join", "enqueues nothing"])
    def test_what_cannot_be_captured_is_a_reason_and_the_device_goes_on(self, device, mistake):
        body = Body(device)

        def work() -> None:
            if mistake == "enqueues nothing":
                return
            device.copy(body.middle, body.source, 4096, body.main)
            if mistake == "synchronises":
                body.main.synchronize()
            else:
                body.main.record(body.fork)
                body.side.wait(body.fork)
                device.copy(body.end, body.middle, 4096, body.side)

        graph, why = device.capture(work, body.main)
        assert graph is None
        assert why
        body.side.synchronize()
        graph, why = device.capture(body, body.main)
        fill(device, body.source, 7.0, body.main)
        graph.launch(body.main)
        assert (read(device, body.end, body.main) == 7).all()

    def test_ten_thousand_launches_grow_nothing(self, device):
        body = Body(device)
        graph = device.capture(body, body.main).graph
        entry = device.create_event()

        def launch(times: int) -> None:
            for index in range(times):
                graph.launch(body.main)
                body.main.record(entry)
                body.side.wait(entry)
                if index % 100 == 0:
                    body.main.synchronize()
            body.main.synchronize()

        launch(1000)
        free_before, rss_before = free_bytes(device), rss_bytes()
        launch(10_000)
        assert free_before - free_bytes(device) <= 2 * MIB
        assert rss_bytes() - rss_before <= 8 * MIB


class TestTrace:
    def test_times_are_monotone_and_longer_work_takes_longer(self):
        device = CudaDevice(0, trace=True)
        stream, buffer = device.create_stream(0), device.allocate(LARGE_BYTES)
        small, large = np.zeros(1, np.float32), device.allocate(LARGE_BYTES)
        for _ in range(20):
            device.upload(buffer, small.ctypes.data, 4, stream)
            device.copy(large, buffer, LARGE_BYTES, stream)
        stream.synchronize()
        entries = device.timeline()
        assert len(entries) == 40
        starts = [entry.start_us for entry in entries]
        assert starts == sorted(starts)
        assert all(entry.end_us > entry.start_us for entry in entries)
        durations = {
            name: np.median([e.end_us - e.start_us for e in entries if e.name == name])
            for name in ("host -> device 0", "device 0 -> 0")
        }
        assert durations["device 0 -> 0"] > durations["host -> device 0"]
        device.close()


class TestTorch:
    """PyTorch in the same process: its streams, its memory, its kernels."""

    @pytest.fixture
    def torch(self):
        torch = pytest.importorskip("torch")
        if not torch.cuda.is_available():
            pytest.skip("needs a build of torch with CUDA")
        return torch

    def test_a_graph_is_launched_into_a_stream_of_torch(self, device, torch):
        body = Body(device, LARGE_BYTES)
        graph = device.capture(body, body.main).graph
        stream = torch.cuda.Stream()
        theirs = device.borrow_stream(stream.cuda_stream)
        assert theirs.launchable
        x = torch.empty(LARGE_BYTES // 4, device="cuda")
        torch.cuda.synchronize()
        with torch.cuda.stream(stream):
            for value in range(1, 6):
                x.fill_(value).mul_(2.0)
                device.upload(body.source, x.data_ptr(), LARGE_BYTES, theirs)
                graph.launch(theirs)
                device.download(x.data_ptr(), body.end, LARGE_BYTES, theirs)
                total = (x == 2.0 * value).sum()
                stream.synchronize()
                assert int(total) == LARGE_BYTES // 4

    def test_kernels_of_torch_are_captured_in_our_streams(self, device, torch):
        stream, side = device.create_stream(0), device.create_stream(1)
        fork, join = device.create_event(), device.create_event()
        x = torch.zeros(1024, device="cuda")
        left, right = torch.zeros_like(x), torch.zeros_like(x)
        torch.cuda.synchronize()
        outer = torch.cuda.ExternalStream(stream.handle)
        inner = torch.cuda.ExternalStream(side.handle)

        def work() -> None:
            stream.record(fork)
            side.wait(fork)
            with torch.cuda.stream(outer):
                torch.add(x, 1.0, out=left)
            with torch.cuda.stream(inner):
                torch.mul(x, 3.0, out=right)
            side.record(join)
            stream.wait(join)
            with torch.cuda.stream(outer):
                left.add_(right)

        graph, why = device.capture(work, stream)
        assert why == ""
        for value in (1.0, 2.0):
            x.fill_(value)
            torch.cuda.synchronize()
            graph.launch(stream)
            stream.synchronize()
            assert bool((left == value * 4 + 1).all())

    def test_a_device_side_fault_loses_the_device_for_good(self, torch):
        """In a process of its own, which it spoils."""
        script = (
            "import torch\n"
            "from parnet_deploy.errors import DeviceLostError\n"
            "from parnet_deploy.runtime.cuda.device import CudaDevice\n"
            "device = CudaDevice(0)\n"
            "stream = device.create_stream(0)\n"
            "x = torch.zeros(4, device='cuda')\n"
            "with torch.cuda.stream(torch.cuda.ExternalStream(stream.handle)):\n"
            "    x[torch.full((4,), 1 << 20, device='cuda')]\n"
            "for call in (stream.synchronize, device.create_event):\n"
            "    try:\n"
            "        call()\n"
            "    except DeviceLostError as error:\n"
            "        print('lost', error.device, error)\n"
            "device.close()\n"
            "print('closed')\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
        )
        lines = done.stdout.splitlines()
        assert lines[-1:] == ["closed"], done.stdout + done.stderr
        assert len(lines) == 3
        assert lines[0].startswith("lost 0 ")
        assert lines[0] == lines[1]


class TestPyCuda:
    """Its contexts are its own, or the primary one; its arrays are addresses."""

    @pytest.fixture
    def pycuda(self):
        pycuda = pytest.importorskip("pycuda.driver")
        pycuda.init()
        return pycuda

    @pytest.mark.parametrize("primary", [True, False])
    def test_its_streams_and_arrays(self, device, no_context, pycuda, primary):
        gpuarray = pytest.importorskip("pycuda.gpuarray")
        gpu = pycuda.Device(0)
        context = gpu.retain_primary_context() if primary else gpu.make_context()
        if primary:
            context.push()
        before = current()
        stream = pycuda.Stream()
        x = gpuarray.to_gpu(np.arange(1024, dtype=np.float32))
        result = gpuarray.zeros(1024, np.float32)
        theirs, main = device.borrow_stream(stream.handle), device.create_stream(0)
        entry, buffer = device.create_event(), device.allocate(x.nbytes)
        assert theirs.launchable is primary
        theirs.record(entry)
        main.wait(entry)
        device.upload(buffer, int(x.gpudata), x.nbytes, main)
        device.download(int(result.gpudata), buffer, x.nbytes, main)
        main.record(entry)
        theirs.wait(entry)
        stream.synchronize()
        np.testing.assert_array_equal(result.get(), np.arange(1024, dtype=np.float32))
        assert current() == before
        entry.close()
        del x, result, stream
        context.pop()
        context.detach()


def view(buffer) -> np.ndarray:
    """Pinned memory as an array, not a copy."""
    memory = (ctypes.c_float * (buffer.nbytes // 4)).from_address(buffer.address)
    return np.frombuffer(memory, dtype=np.float32)


def free_bytes(device) -> int:
    with device.current():
        return int(driver.cuMemGetInfo()[1])


def rss_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
