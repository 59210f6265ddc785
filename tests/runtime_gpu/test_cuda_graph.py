"""Capture over the stand-in driver: fork and join, and every way in which it can be refused."""

from __future__ import annotations

import threading

import pytest
from cuda.bindings import driver

from parnet_deploy.errors import BackendError, DeviceLostError, ExecutionError
from parnet_deploy.runtime.cuda.device import WARM_UPS, CudaDevice
from tests.runtime_gpu.toys import at, filled, foreign_context, ok

ONE, TWO = filled(1.0), filled(2.0)


@pytest.fixture
def device(cuda):
    device = CudaDevice(0)
    yield device
    device.close()
    assert cuda.live() == {}


class Body:
    """Two streams: the second copies what the first wrote, and is joined."""

    def __init__(self, device) -> None:
        self.device = device
        self.main, self.side = device.create_stream(0), device.create_stream(1, 1)
        self.fork, self.join = device.create_event(), device.create_event()
        self.source, self.middle, self.end = (device.allocate(16) for _ in range(3))
        self.runs = 0

    def __call__(self) -> None:
        self.runs += 1
        self.device.copy(self.middle, self.source, 16, self.main)
        self.main.record(self.fork)
        self.side.wait(self.fork)
        self.device.copy(self.end, self.middle, 16, self.side)
        self.side.record(self.join)
        self.main.wait(self.join)

    def result(self, stream, value) -> bool:
        """Whether what is launched now computes with what the source holds now."""
        self.device.upload(self.source, value.ctypes.data, 16, stream)
        self.graph.launch(stream)
        stream.synchronize()
        return bool((at(self.end.address, (4,)) == value[0]).all())


def test_a_fork_and_join_is_launched_again_and_again(cuda, device):
    body = Body(device)
    capture = device.capture(body, body.main)
    assert capture.why_not == ""
    assert body.runs == WARM_UPS + 1
    body.graph = capture.graph
    assert body.graph.nodes == 2
    other = device.create_stream(2)
    for seed in range(20):
        cuda.seed(seed)
        assert body.result(body.main, ONE)
        assert body.result(other, TWO)
    assert cuda.overlaps == 0


def test_a_graph_runs_in_a_borrowed_stream_of_the_primary_context_only(cuda, device):
    body = Body(device)
    body.graph = device.capture(body, body.main).graph
    assert body.result(device.borrow_stream(0), ONE)
    context = foreign_context(0)
    theirs = device.borrow_stream(int(ok(driver.cuStreamCreate(1))))
    with pytest.raises(BackendError, match="a stream of device 0 in a foreign context, expected"):
        body.graph.launch(theirs)
    ok(driver.cuCtxDestroy(context))
    other = CudaDevice(1)
    with pytest.raises(BackendError, match="graph of device 0: got a stream of device 1"):
        body.graph.launch(other.create_stream(0))
    other.close()


@pytest.mark.parametrize("code", range(900, 909))
@pytest.mark.parametrize(
    "function",
    [
        "cuStreamBeginCapture",
        "cuMemcpyDtoDAsync",
        "cuEventRecord",
        "cuStreamWaitEvent",
        "cuStreamEndCapture",
        "cuGraphInstantiate",
        "cuGraphUpload",
    ],
)
def test_each_capture_error_is_a_reason_and_the_device_stays_usable(cuda, device, code, function):
    body = Body(device)

    def fail_in_capture() -> None:
        if body.runs == WARM_UPS:
            cuda.fail(function, code)
        body()

    if function == "cuStreamBeginCapture":
        cuda.fail(function, code)
    graph, why = device.capture(fail_in_capture, body.main)
    assert cuda.failed == function
    assert graph is None
    assert f"{function} on device 0: got CUDA_ERROR_" in why
    assert "Run it without a graph." in why
    body()
    body.main.synchronize()
    body.graph = device.capture(body, body.main).graph
    assert body.result(body.main, TWO)


@pytest.mark.parametrize(
    ("work", "reason"),
    [
        ("allocates", "STREAM_CAPTURE_UNSUPPORTED"),
        ("synchronises", "STREAM_CAPTURE_UNSUPPORTED"),
        ("does not join", "STREAM_CAPTURE_UNJOINED"),
        ("waits for the outside", "STREAM_CAPTURE_ISOLATION"),
        ("copies to a peer", "STREAM_CAPTURE_UNSUPPORTED"),
        ("enqueues nothing", "got no work in the stream"),
        ("enqueues elsewhere", "got no work in the stream"),
    ],
)
def test_work_that_cannot_be_captured(cuda, device, work, reason):
    body, other = Body(device), device.create_stream(2)
    outside, peer = device.create_event(), CudaDevice(1)
    there = peer.allocate(16)
    other.record(outside)
    todo = {
        "allocates": lambda: device.allocate(16).close(),
        "synchronises": body.main.synchronize,
        "does not join": lambda: [
            body.main.record(body.fork),
            body.side.wait(body.fork),
            device.copy(body.end, body.middle, 16, body.side),
        ],
        "waits for the outside": lambda: body.main.wait(outside),
        "copies to a peer": lambda: device.copy(there, body.source, 16, body.main),
        "enqueues nothing": lambda: None,
        "enqueues elsewhere": lambda: device.copy(body.end, body.middle, 16, other),
    }[work]
    graph, why = device.capture(todo, body.main)
    assert graph is None
    assert reason in why
    body.graph = device.capture(body, body.main).graph
    assert body.result(body.main, TWO)
    peer.close()


def test_an_engine_that_refuses_to_be_captured_is_a_reason(cuda, device):
    body = Body(device)

    def work() -> None:
        body()
        if body.runs > WARM_UPS:
            raise ExecutionError("engine: enqueue said no.")

    assert device.capture(work, body.main) == (None, "engine: enqueue said no.")
    body.main.synchronize()


def test_work_that_does_not_even_run_raises(cuda, device):
    stream = device.create_stream(0)
    with pytest.raises(BackendError, match="INVALID_VALUE"):
        device.capture(lambda: device.upload(device.allocate(4), 0, 4, stream), stream)
    stream.synchronize()


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_an_interrupt_ends_the_capture_and_goes_on(cuda, device, error):
    body = Body(device)

    def work() -> None:
        body()
        if body.runs == WARM_UPS + 1:
            raise error

    with pytest.raises(error):
        device.capture(work, body.main)
    body.graph = device.capture(body, body.main).graph
    assert body.result(body.main, TWO)


def test_a_device_lost_while_it_captures(cuda, device):
    body = Body(device)

    def work() -> None:
        if body.runs == WARM_UPS:
            cuda.lose(0, 719)
        body()

    with pytest.raises(DeviceLostError):
        device.capture(work, body.main)


def test_other_threads_may_allocate_meanwhile(cuda, device):
    body, made = Body(device), []

    def work() -> None:
        body()
        thread = threading.Thread(target=lambda: made.append(device.allocate(16)))
        thread.start()
        thread.join()

    assert device.capture(work, body.main).graph is not None
    assert len(made) == WARM_UPS + 1
