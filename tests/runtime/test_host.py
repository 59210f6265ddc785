"""Threads as streams: order, events, failures, lifetime."""

from __future__ import annotations

import ctypes
import gc
import random
import threading
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parnet_deploy.errors import (
    BackendError,
    DeviceUnavailableError,
    ExecutionError,
    OutOfMemoryError,
)
from parnet_deploy.placement import Placement, streams
from parnet_deploy.runtime.executor import Executor
from parnet_deploy.runtime.fake.device import FakeEvent
from parnet_deploy.runtime.host import ALIGNMENT_BYTES, HostBuffer, HostDevice
from tests.runtime.host_toys import Engine
from tests.runtime.runtime_toys import (
    SPECS,
    fixed_size,
    images,
    random_placement,
    reference,
    run,
    segment_kernel,
)


def host_executor(spec, placement: Placement, before=None, slots: int = 1, trace: bool = False):
    kernels = segment_kernel(spec)
    return Executor(
        spec=spec,
        placement=placement,
        devices={0: HostDevice(trace=trace)},
        engines={s.name: Engine(s, kernels(s), before) for s in placement.segments},
        input_size=fixed_size(spec),
        max_batch=2,
        slots=slots,
    )


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(SPECS)), st.integers(0, 2**32), st.integers(1, 4))
def test_any_placement_equals_the_sequential_network(count, seed, lanes):
    spec = SPECS[count]
    executor = host_executor(spec, random_placement(spec, random.Random(seed), 1, lanes))
    for batch in (1, 2):
        x = images(spec, batch, seed)
        np.testing.assert_array_equal(run(executor, spec, x), reference(spec, x))
    executor.close()


@pytest.mark.parametrize("failing", [s.name for s in streams(SPECS[4]).segments])
def test_a_failure_in_any_lane_surfaces_and_the_next_call_succeeds(failing):
    spec, fail = SPECS[4], [True]

    def before(name: str) -> None:
        if name == failing and fail[0]:
            raise ExecutionError(f"segment {name}: broken")

    executor = host_executor(spec, streams(spec), before)
    x = images(spec)
    with pytest.raises(ExecutionError, match=f"segment {failing}: broken"):
        run(executor, spec, x)
    fail[0] = False
    np.testing.assert_array_equal(run(executor, spec, x), reference(spec, x))
    executor.close()


def test_an_interrupt_in_the_callers_thread_leaves_nothing_running():
    spec, interrupt = SPECS[3], [True]

    def before(name: str) -> None:
        if name == "stream2" and interrupt[0]:
            raise KeyboardInterrupt

    executor = host_executor(spec, streams(spec), before)
    x = images(spec)
    with pytest.raises(KeyboardInterrupt):
        run(executor, spec, x)
    interrupt[0] = False
    np.testing.assert_array_equal(run(executor, spec, x), reference(spec, x))
    executor.close()


def test_lanes_really_overlap():
    """Two segments that wait for each other can only end if both run at the same time."""
    spec = SPECS[2]
    meeting = threading.Barrier(2, timeout=20)

    def before(name: str) -> None:
        if name in ("stream0", "stream1"):
            meeting.wait()

    executor = host_executor(spec, streams(spec), before)
    np.testing.assert_array_equal(run(executor, spec, images(spec)), reference(spec, images(spec)))
    executor.close()


def test_lane_zero_runs_in_the_callers_thread_and_others_do_not():
    spec, threads = SPECS[3], {}
    executor = host_executor(
        spec, streams(spec), lambda name: threads.update({name: threading.current_thread()})
    )
    run(executor, spec, images(spec))
    executor.close()
    here = threading.current_thread()
    inline = {name for name, thread in threads.items() if thread is here}
    assert inline == {"stem0", "stem1", "stream2", "head"}
    assert threads["stream1"] is threads["fusion1"]
    assert not any(threads[name].is_alive() for name in ("stream0", "stream1"))


def test_many_calls_leave_nothing_behind():
    spec = SPECS[3]
    executor, x = host_executor(spec, streams(spec)), images(spec)
    for _ in range(20):
        run(executor, spec, x)
    gc.collect()
    threads = threading.active_count()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for _ in range(200):
        run(executor, spec, x)
    gc.collect()
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert threading.active_count() == threads
    assert grown < 20_000  # 100 bytes per call would be a leak
    executor.close()


def test_the_trace_is_measured():
    spec = SPECS[2]
    executor = host_executor(spec, streams(spec), trace=True)
    run(executor, spec, images(spec))
    entries = executor.timeline()
    assert entries[0].name == "stem0"
    assert {entry.stream for entry in entries} == {"lane0", "lane1"}
    assert not any(entry.simulated for entry in entries)
    executor.close()


class TestEvents:
    def test_a_wait_refers_to_the_record_before_it(self):
        device = HostDevice()
        first, second = device.create_stream(1), device.create_stream(2)
        event, gate, seen = device.create_event(), threading.Event(), []
        first.record(event)
        second.wait(event)  # the record above, not the one below
        first.submit(gate.wait, "gate")
        first.record(event)
        second.submit(lambda: seen.append("second"), "work")
        second.synchronize()
        assert seen == ["second"]
        gate.set()
        event.synchronize()
        first.close()
        second.close()

    def test_an_event_that_was_never_recorded_is_not_waited_for(self):
        device = HostDevice()
        for lane in (0, 1):
            stream = device.create_stream(lane)
            stream.wait(device.create_event())
            stream.synchronize()
            stream.close()
        device.create_event().synchronize()

    def test_a_failure_travels_with_the_event_and_is_cleared_by_synchronize(self):
        device = HostDevice()
        first, second, inline = (device.create_stream(lane) for lane in (1, 2, 0))
        event, again, seen = device.create_event(), device.create_event(), []

        def fail() -> None:
            raise ExecutionError("broken")

        first.submit(fail, "fail")
        first.submit(lambda: seen.append("skipped"), "work")
        first.record(event)
        second.wait(event)
        second.record(again)
        inline.wait(again)
        inline.submit(lambda: seen.append("skipped too"), "work")
        for stream in (first, second, inline):
            with pytest.raises(ExecutionError, match="broken"):
                stream.synchronize()
            stream.synchronize()
            stream.submit(lambda: seen.append("works again"), "work")
            stream.synchronize()
            stream.close()
        assert seen == ["works again"] * 3

    def test_an_event_of_another_backend_is_refused(self):
        stream = HostDevice().create_stream(0)
        with pytest.raises(BackendError, match="got a FakeEvent, expected one of the host"):
            stream.wait(FakeEvent(None))


class TestLifetime:
    def test_close_finishes_the_work_and_is_idempotent(self):
        stream, seen = HostDevice().create_stream(1), []
        stream.submit(lambda: seen.append(1), "work")
        stream.close()
        stream.close()
        stream.synchronize()
        assert seen == [1]
        with pytest.raises(BackendError, match="it is closed"):
            stream.submit(lambda: None, "work")

    def test_a_forgotten_stream_ends_its_thread(self):
        stream = HostDevice().create_stream(1)
        thread = stream._thread
        del stream
        gc.collect()
        thread.join(timeout=20)
        assert not thread.is_alive()

    def test_buffers_are_aligned_and_nan(self):
        buffer = HostDevice().allocate(1000)
        assert buffer.address % ALIGNMENT_BYTES == 0
        content = np.ctypeslib.as_array((ctypes.c_float * 250).from_address(buffer.address))
        assert np.isnan(content).all()
        del content
        buffer.close()
        buffer.close()

    def test_out_of_memory(self):
        with pytest.raises(
            OutOfMemoryError, match=r"host memory: got no 1152921504606846976 bytes"
        ):
            HostBuffer(2**60)

    def test_no_foreign_streams_on_a_cpu(self):
        with pytest.raises(DeviceUnavailableError, match="stream 0x10: this runtime runs on the"):
            HostDevice().borrow_stream(16)

    def test_copies_run_in_order_with_the_rest(self):
        device = HostDevice()
        stream = device.create_stream(1)
        source, target = device.allocate(16), device.allocate_host(16)
        data, result = np.arange(4, dtype=np.float32), np.zeros(4, np.float32)
        device.upload(source, data.ctypes.data, 16, stream)
        device.copy(target, source, 16, stream)
        device.download(result.ctypes.data, target, 16, stream)
        stream.synchronize()
        np.testing.assert_array_equal(result, data)
        assert (source.device, target.device) == (0, -1)
        assert device.timeline() == ()
        stream.close()
        device.close()


@pytest.mark.parametrize("nbytes", [2**62, 2**63 - 65, 10**30])
def test_more_memory_than_there_can_be(nbytes):
    with pytest.raises(OutOfMemoryError, match="host memory: got no"):
        HostBuffer(nbytes)
