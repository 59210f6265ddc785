"""Copies and allocations of a call on GPUs, counted at the driver."""

from __future__ import annotations

import ctypes
from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest

from parnet_deploy import Runtime
from parnet_deploy.errors import BackendError, DeviceLostError, InputError
from parnet_deploy.placement import one, streams
from parnet_deploy.runtime import slot
from parnet_deploy.runtime.backend import LoadedPlan
from parnet_deploy.runtime.cuda.device import CudaDevice, open_devices
from tests.gpu.runtime_contract import MAX_BATCH, SIZE, SPEC, Frames, batch, check
from tests.runtime.memory import CallersMemory
from tests.runtime.runtime_toys import make_plan, reference, segment_kernel
from tests.runtime_gpu.toys import KernelEngine

COPIES = ("cuMemcpyAsync", "cuMemcpyDtoDAsync", "cuMemcpyPeerAsync", "cuGraphLaunch")
MADE = ("cuMemAlloc", "cuMemHostAlloc", "cuStreamCreateWithPriority", "cuEventCreate")


class KernelBackend:
    """See ``backend.Backend``: numpy kernels on the stand-in's devices."""

    name = "tensorrt"

    def __init__(self, cuda) -> None:
        self.cuda = cuda

    def load(self, spec, plan, files, threads=None, *, trace=False) -> LoadedPlan:
        devices = open_devices(plan.placement.devices, trace=trace)
        kernels = segment_kernel(spec)
        engines = {
            segment.name: KernelEngine(
                self.cuda, devices[segment.device], segment, kernels(segment)
            )
            for segment in plan.placement.segments
        }
        return LoadedPlan(devices=devices, engines=engines)


@pytest.fixture
def cuda(cuda):
    yield cuda
    assert cuda.live() == {}, "something was not freed"


@pytest.fixture
def moves(monkeypatch) -> list[tuple[int, int, int]]:
    """Copies on the host: (target, source, bytes)."""
    made: list[tuple[int, int, int]] = []

    def move(target: int, source: int, nbytes: int) -> None:
        made.append((target, source, nbytes))
        ctypes.memmove(target, source, nbytes)

    monkeypatch.setattr(slot, "ctypes", SimpleNamespace(memmove=move))
    return made


@pytest.fixture
def frames(cuda):
    device = CudaDevice(0)
    made = Frames(device, batch(2, seed=5))
    made.stream.synchronize()
    yield made
    made.close()
    device.close()


def open_runtime(cuda, placement, *, trace: bool = False) -> Runtime:
    plan = make_plan(placement, SIZE, MAX_BATCH, backend="tensorrt")
    return Runtime.from_plan(SPEC, plan, {}, backend=KernelBackend(cuda), trace=trace)


def calls_of(cuda, call: Callable[[], object]) -> Counter[str]:
    """Copies, launches and allocations that the driver was asked for."""
    before = {name: cuda.calls(name) for name in (*COPIES, *MADE)}
    call()
    return +Counter({name: cuda.calls(name) - count for name, count in before.items()})


@pytest.mark.parametrize("placement", [one, streams])
@pytest.mark.parametrize("graph", [True, False], ids=["graph", "eager"])
def test_from_the_host(cuda, moves, placement, graph):
    x, out = batch(2), np.full((2, SPEC.num_classes), np.nan, np.float32)
    with open_runtime(cuda, placement(SPEC), trace=not graph) as rt:
        rt(x)
        moves.clear()
        found = calls_of(cuda, lambda: rt.run_into(x.ctypes.data, out.ctypes.data, n=2))
        if not graph:
            del found["cuEventCreate"]  # a traced device times each operation by events
        assert found == ({"cuGraphLaunch": 1} if graph else {"cuMemcpyAsync": 2})
    check(out, x)
    (staging, source, image_bytes), (target, _, logits_bytes) = moves
    assert (source, image_bytes) == (x.ctypes.data, x.nbytes)
    assert (target, logits_bytes) == (out.ctypes.data, out.nbytes)
    assert staging != source


@pytest.mark.parametrize("placement", [one, streams])
def test_in_the_callers_stream(cuda, moves, frames, placement):
    """One copy on the device into the graph's own input, one launch, one copy out of it."""
    with open_runtime(cuda, placement(SPEC)) as rt:
        addresses = frames.image.address, frames.logits.address

        def call() -> None:
            rt.run_into(*addresses, n=2, stream=frames.stream)

        call()
        for _ in range(3):
            assert calls_of(cuda, call) == {"cuMemcpyAsync": 2, "cuGraphLaunch": 1}
            check(frames.read(), frames.x)
    assert moves == []


def test_an_array_of_a_gpu(cuda, moves, frames):
    """The image stays on the GPU; only the logits come to the host, once, by a copy each."""
    with open_runtime(cuda, streams(SPEC)) as rt:
        check(rt(frames.array), frames.x)
        moves.clear()
        answers = []
        found = calls_of(cuda, lambda: answers.append(rt(frames.array)))
        assert found == {"cuMemcpyAsync": 2, "cuGraphLaunch": 1}
        check(answers[0], frames.x)
    assert [move[0] for move in moves] == [answers[0].ctypes.data]


def test_logits_that_stay_on_the_gpu(cuda, moves, frames):
    """A buffer that was read is used again; a new one is made only while others are kept."""
    with open_runtime(cuda, streams(SPEC)) as rt:

        def enqueue():
            return rt.enqueue(frames.array, stream=frames.stream)

        address = enqueue().address
        for _ in range(3):
            found = []
            made = calls_of(cuda, lambda found=found: found.append(enqueue()))
            assert made == {"cuMemcpyAsync": 2, "cuGraphLaunch": 1}
            assert found.pop().address == address
        kept = enqueue()
        more = []
        made = calls_of(cuda, lambda: more.append(enqueue()))
        assert (made["cuMemAlloc"], made["cuEventCreate"]) == (1, 1)
        assert more[0].address != kept.address
        del kept
        more.clear()
    assert moves == []


class TestErrors:
    @pytest.fixture
    def memory(self):
        return CallersMemory(batch(2), SPEC.num_classes)

    @pytest.mark.parametrize("gpus", [(0,), (0, 1)])
    def test_a_lost_gpu_touches_nothing_on_the_host(self, cuda, memory, gpus):
        with open_runtime(cuda, streams(SPEC, gpus)) as rt:
            image, logits = memory.addresses
            rt.run_into(image, logits, n=2)
            check(memory.logits, memory.image)
            memory = CallersMemory(batch(2), SPEC.num_classes)
            cuda.lose(gpus[-1])
            image, logits = memory.addresses
            for _ in range(2):
                with pytest.raises(DeviceLostError):
                    rt.run_into(image, logits, n=2)
                memory.check_untouched()
        cuda.reset()

    @pytest.mark.parametrize("code", [2, 700])
    def test_whichever_call_of_the_driver_fails(self, cuda, memory, code):
        """One after the other: either the answer is right, or nothing was touched."""
        image, logits = memory.addresses
        expected, hit = reference(SPEC, memory.image), []
        for after in range(1000):
            cuda.reset()
            with open_runtime(cuda, streams(SPEC, (0, 1))) as rt:
                rt.run_into(image, logits, n=2)
                memory.check_answered(expected)
                cuda.fail("*", code, after)
                try:
                    rt.run_into(image, logits, n=2)
                except BackendError:
                    memory.check_untouched()
                else:
                    memory.check_answered(expected)
                failed = cuda.failed
                cuda.fail("nothing", 0)  # closing is not the subject
            if not failed:
                break
            hit.append(failed)
        assert {"cuGraphLaunch", "cuMemcpyPeerAsync", "cuStreamSynchronize"} <= set(hit)

    def test_device_memory_where_the_hosts_is_expected(self, cuda, frames, memory):
        image, logits = memory.addresses
        with open_runtime(cuda, one(SPEC)) as rt:
            for addresses in ((frames.image.address, logits), (image, frames.logits.address)):
                with pytest.raises(InputError, match="got memory of device 0"):
                    rt.run_into(*addresses, n=2)
                memory.check_untouched()
