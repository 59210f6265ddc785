"""The stand-in itself: what it lets through, what it refuses, and that mistakes show."""

from __future__ import annotations

import pytest
from cuda.bindings import driver as d

from tests.runtime_gpu.toys import at, filled, foreign_context, ok
from tests.stubs.cuda_stub import CudaStub, CudaStubError


@pytest.fixture
def primary(cuda: CudaStub):
    ok(d.cuInit(0))
    context = ok(d.cuDevicePrimaryCtxRetain(0))
    ok(d.cuCtxPushCurrent(context))
    yield context
    ok(d.cuCtxPopCurrent())
    d.cuDevicePrimaryCtxRelease(0)


def stream():
    return ok(d.cuStreamCreate(1))


def event():
    return ok(d.cuEventCreate(2))


def code(result) -> int:
    return int(result[0])


def test_it_starts_only_after_init(cuda):
    assert code(d.cuDeviceGetCount()) == 3
    ok(d.cuInit(0))
    assert ok(d.cuDeviceGetCount()) == 2
    cuda.reset(devices=0)
    assert code(d.cuInit(0)) == 100


def test_nothing_runs_before_somebody_synchronises(cuda, primary):
    on, memory = stream(), ok(d.cuMemAlloc(16))
    source = filled(2.0)
    values = at(int(memory), (4,))
    assert (values != values).all()
    ok(d.cuMemcpyAsync(memory, source.ctypes.data, 16, on))
    assert (values != values).all()
    ok(d.cuStreamSynchronize(on))
    assert (values == 2.0).all()


@pytest.mark.parametrize("ordered", [True, False])
def test_order_between_streams_comes_from_events_alone(cuda, primary, ordered):
    right = []
    for seed in range(40):
        cuda.seed(seed)
        producer, consumer, reached = stream(), stream(), event()
        source, end = ok(d.cuMemAlloc(16)), ok(d.cuMemAlloc(16))
        ok(d.cuMemsetD32Async(source, 7, 4, producer))
        if ordered:
            ok(d.cuEventRecord(reached, producer))
            ok(d.cuStreamWaitEvent(consumer, reached, 0))
        ok(d.cuMemcpyDtoDAsync(end, source, 16, consumer))
        ok(d.cuStreamSynchronize(consumer))
        right.append(at(int(end), (4,)).tobytes() == (7).to_bytes(4, "little") * 4)
    assert all(right) if ordered else 0 < sum(right) < 40


def test_a_wait_refers_to_the_record_before_it(cuda, primary):
    first, second, reached = stream(), stream(), event()
    memory, ran = ok(d.cuMemAlloc(16)), []
    ok(d.cuStreamWaitEvent(second, reached, 0))  # never recorded: no wait
    cuda.launch(int(second), lambda: ran.append("second"), [int(memory)])
    ok(d.cuEventRecord(reached, first))
    ok(d.cuStreamSynchronize(second))
    assert ran == ["second"]


def test_the_legacy_stream_orders_blocking_ones_and_not_others(cuda, primary):
    blocking, free, ran = ok(d.cuStreamCreate(0)), stream(), []
    cuda.launch(int(blocking), lambda: ran.append("blocking"))
    cuda.launch(int(free), lambda: ran.append("free"))
    cuda.launch(1, lambda: ran.append("legacy"))
    ok(d.cuStreamSynchronize(1))
    assert ran.index("blocking") < ran.index("legacy")
    ok(d.cuStreamSynchronize(free))
    assert len(ran) == 3


class TestStrictness:
    def test_no_current_context(self, cuda):
        ok(d.cuInit(0))
        assert code(d.cuMemAlloc(16)) == 201
        assert code(d.cuStreamCreate(1)) == 201

    def test_a_handle_of_another_context(self, cuda, primary):
        on = stream()
        other = foreign_context(0)
        assert code(d.cuStreamSynchronize(on)) == 400
        assert code(d.cuEventRecord(event(), on)) == 400
        assert code(d.cuStreamDestroy(on)) == 400
        with pytest.raises(CudaStubError, match="400"):
            cuda.launch(int(on), lambda: None)
        ok(d.cuCtxDestroy(other))

    def test_stale_handles_and_double_free(self, cuda, primary):
        on, reached, memory = stream(), event(), ok(d.cuMemAlloc(16))
        for destroy, handle in (
            (d.cuStreamDestroy, on),
            (d.cuEventDestroy, reached),
            (d.cuMemFree, memory),
        ):
            ok(destroy(handle))
            assert code(destroy(handle)) in (1, 400)
        assert code(d.cuStreamSynchronize(on)) == 400
        assert cuda.live() == {"retained": 1}

    def test_memory_freed_before_a_kernel_runs_loses_the_device(self, cuda, primary):
        on, memory = stream(), ok(d.cuMemAlloc(16))
        cuda.launch(int(on), lambda: None, [int(memory)])
        ok(d.cuMemFree(memory))
        assert code(d.cuStreamSynchronize(on)) == 700
        assert code(d.cuStreamCreate(1)) == 700

    def test_a_kernel_reaches_peers_only_when_access_is_enabled(self, cuda, primary):
        peer = ok(d.cuDevicePrimaryCtxRetain(1))
        ok(d.cuCtxPushCurrent(peer))
        memory = ok(d.cuMemAlloc(16))
        ok(d.cuCtxPopCurrent())
        on = stream()
        ok(d.cuCtxEnablePeerAccess(peer, 0))
        cuda.launch(int(on), lambda: None, [int(memory)])
        ok(d.cuStreamSynchronize(on))
        assert code(d.cuCtxEnablePeerAccess(peer, 0)) == 704

    def test_a_copy_beyond_the_end_of_memory(self, cuda, primary):
        on, memory = stream(), ok(d.cuMemAlloc(16))
        assert code(d.cuMemsetD32Async(memory, 0, 5, on)) == 1

    def test_the_limit_of_memory(self, cuda):
        cuda.reset(memory_bytes=100)
        ok(d.cuInit(0))
        ok(d.cuCtxPushCurrent(ok(d.cuDevicePrimaryCtxRetain(0))))
        ok(d.cuMemAlloc(60))
        assert code(d.cuMemAlloc(60)) == 2
        assert cuda.used_bytes(0) == 60
        ok(d.cuCtxPopCurrent())

    def test_kernels_must_not_call_cuda(self, cuda, primary):
        on, codes = stream(), []
        cuda.launch(int(on), lambda: codes.append(code(d.cuCtxGetCurrent())))
        ok(d.cuStreamSynchronize(on))
        assert codes == [800]

    def test_what_a_kernel_raises_is_kept_and_loses_the_device(self, cuda, primary):
        on = stream()
        cuda.launch(int(on), lambda: 1 / 0)
        assert code(d.cuStreamSynchronize(on)) == 719
        assert isinstance(cuda.errors.pop(), ZeroDivisionError)


class TestCapture:
    mode = d.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL

    def begin(self):
        on = stream()
        ok(d.cuStreamBeginCapture(on, self.mode))
        return on

    def test_a_launch_respects_the_edges_in_any_order(self, cuda, primary):
        orders = set()
        other, fork, join, ran = stream(), event(), event(), []
        on = self.begin()
        cuda.launch(int(on), lambda: ran.append("first"))
        ok(d.cuEventRecord(fork, on))
        ok(d.cuStreamWaitEvent(other, fork, 0))
        cuda.launch(int(other), lambda: ran.append("left"))
        cuda.launch(int(on), lambda: ran.append("right"))
        ok(d.cuEventRecord(join, other))
        ok(d.cuStreamWaitEvent(on, join, 0))
        cuda.launch(int(on), lambda: ran.append("last"))
        graph = ok(d.cuStreamEndCapture(on))
        assert ran == []
        executable = ok(d.cuGraphInstantiate(graph, 0))
        for _ in range(20):
            ran.clear()
            ok(d.cuGraphLaunch(executable, on))
            ok(d.cuStreamSynchronize(on))
            assert (ran[0], ran[3]) == ("first", "last")
            orders.add(tuple(ran))
        assert len(orders) == 2
        ok(d.cuGraphDestroy(graph))
        ok(d.cuGraphExecDestroy(executable))

    @pytest.mark.parametrize("ordered", [True, False])
    def test_launches_of_one_graph_are_counted_when_they_overlap(self, cuda, primary, ordered):
        on, other = self.begin(), stream()
        cuda.launch(int(on), lambda: None)
        executable = ok(d.cuGraphInstantiate(ok(d.cuStreamEndCapture(on)), 0))
        for launch_in in (on, on if ordered else other):
            ok(d.cuGraphLaunch(executable, launch_in))
        ok(d.cuStreamSynchronize(on))
        ok(d.cuStreamSynchronize(other))
        assert cuda.overlaps == (0 if ordered else 1)

    @pytest.mark.parametrize("call", [lambda: d.cuMemAlloc(16), d.cuCtxSynchronize])
    def test_what_waits_or_allocates_is_refused_and_spoils_the_capture(self, cuda, primary, call):
        on = self.begin()
        assert code(call()) == 900
        assert code(d.cuStreamEndCapture(on)) == 901
        ok(d.cuStreamSynchronize(on))

    def test_synchronising_a_stream_that_captures(self, cuda, primary):
        on = self.begin()
        assert code(d.cuStreamSynchronize(on)) == 900
        assert code(d.cuStreamEndCapture(on)) == 901

    def test_a_wait_across_the_border_in_either_direction(self, cuda, primary):
        outside, before, inside = stream(), event(), event()
        ok(d.cuEventRecord(before, outside))
        on = self.begin()
        assert code(d.cuStreamWaitEvent(on, before, 0)) == 905
        assert code(d.cuStreamEndCapture(on)) == 901
        on = self.begin()
        cuda.launch(int(on), lambda: None)
        ok(d.cuEventRecord(inside, on))
        ok(d.cuStreamEndCapture(on))
        assert code(d.cuStreamWaitEvent(outside, inside, 0)) == 905
        assert code(d.cuEventSynchronize(inside)) == 907

    def test_an_unjoined_fork(self, cuda, primary):
        other, fork = stream(), event()
        on = self.begin()
        ok(d.cuEventRecord(fork, on))
        ok(d.cuStreamWaitEvent(other, fork, 0))
        cuda.launch(int(other), lambda: None)
        assert code(d.cuStreamEndCapture(on)) == 904
        ok(d.cuStreamSynchronize(other))

    def test_two_captures_do_not_mix(self, cuda, primary):
        reached = event()
        one, two = self.begin(), self.begin()
        ok(d.cuEventRecord(reached, one))
        assert code(d.cuStreamWaitEvent(two, reached, 0)) == 902
        assert code(d.cuStreamEndCapture(one)) == 901
        assert code(d.cuStreamEndCapture(two)) == 901

    def test_ends_only_where_it_began(self, cuda, primary):
        other, fork = stream(), event()
        assert code(d.cuStreamEndCapture(other)) == 401
        on = self.begin()
        ok(d.cuEventRecord(fork, on))
        ok(d.cuStreamWaitEvent(other, fork, 0))
        assert code(d.cuStreamEndCapture(other)) == 903
        assert code(d.cuStreamEndCapture(on)) == 901

    def test_the_legacy_stream_cannot_be_captured(self, cuda, primary):
        assert code(d.cuStreamBeginCapture(1, self.mode)) == 900


def test_an_injected_failure_hits_one_call(cuda, primary):
    cuda.fail("cuEventCreate", 2, after=1)
    codes = [code(d.cuEventCreate(0)) for _ in range(3)]
    assert codes == [0, 2, 0]
    assert cuda.failed == "cuEventCreate"
    assert cuda.calls("cuEventCreate") == 3
