"""Devices, streams, events and memory over the stand-in driver: the rules of ``device``."""

from __future__ import annotations

import logging
import threading
from types import SimpleNamespace

import numpy as np
import pytest
from cuda.bindings import driver

from parnet_deploy.errors import (
    BackendError,
    DeviceLostError,
    DeviceUnavailableError,
    InputError,
    OutOfMemoryError,
)
from parnet_deploy.runtime.cuda.device import CudaDevice, open_devices
from tests.runtime_gpu.toys import at, filled, foreign_context, ok


@pytest.fixture
def pair(cuda):
    devices = open_devices([0, 1])
    yield devices[0], devices[1]
    for device in devices.values():
        device.close()
    assert cuda.live() == {}


@pytest.fixture
def device(pair):
    return pair[0]


def holding(device, value: float, stream):
    """A buffer into which the value is on its way."""
    buffer = device.allocate(16)
    device.upload(buffer, VALUES[value].ctypes.data, 16, stream)
    return buffer


VALUES = {value: filled(value) for value in (1.0, 2.0, 3.0)}


class TestStreams:
    def test_work_runs_in_order_and_only_when_somebody_waits(self, device):
        stream = device.create_stream(0)
        buffer, result = holding(device, 1.0, stream), filled(0.0)
        device.upload(buffer, VALUES[2.0].ctypes.data, 16, stream)
        device.download(result.ctypes.data, buffer, 16, stream)
        assert (result == 0).all()
        stream.synchronize()
        assert (result == 2).all()

    @pytest.mark.parametrize("target", [0, 1])
    def test_an_event_orders_streams_of_one_or_two_devices(self, cuda, pair, target):
        one, two = pair[0], pair[target]
        for seed in range(40):
            cuda.seed(seed)
            producer, consumer, reached = (
                one.create_stream(0),
                two.create_stream(1),
                one.create_event(),
            )
            source, there, end = holding(one, 2.0, producer), two.allocate(16), filled(0.0)
            one.copy(there, source, 16, producer)
            producer.record(reached)
            consumer.wait(reached)
            two.download(end.ctypes.data, there, 16, consumer)
            consumer.synchronize()
            assert (end == 2).all()

    def test_an_event_that_was_never_recorded_is_not_waited_for(self, device):
        stream, event = device.create_stream(0), device.create_event()
        stream.wait(event)
        event.synchronize()
        stream.synchronize()

    def test_an_event_is_waited_for_by_the_caller(self, device):
        stream, event = device.create_stream(0), device.create_event()
        buffer = holding(device, 3.0, stream)
        stream.record(event)
        event.synchronize()
        assert (at(buffer.address, (4,)) == 3).all()

    def test_ranks_become_priorities_in_the_range_of_the_device(self, device):
        with device.current():
            priorities = [
                ok(driver.cuStreamGetPriority(device.create_stream(0, rank).handle))
                for rank in (0, 1, 4, 5, 6, 1000)
            ]
            flags = ok(driver.cuStreamGetFlags(device.create_stream(0).handle))
        assert priorities == [-5, -4, -1, 0, 0, 0]
        assert flags == int(driver.CUstream_flags.CU_STREAM_NON_BLOCKING)

    def test_events_of_other_devices_and_backends_are_refused(self, pair):
        one, two = pair
        stream = one.create_stream(0)
        with pytest.raises(BackendError, match="event: got one of device 1, expected device 0"):
            stream.record(two.create_event())
        with pytest.raises(BackendError, match="got a SimpleNamespace, expected one of a CUDA"):
            stream.wait(SimpleNamespace())

    def test_the_interpreter_runs_while_a_stream_is_waited_for(self, cuda, device):
        """The operation blocks in C: nobody could open the gate if the GIL were held."""
        stream, opened = device.create_stream(0), []
        with device.current():
            cuda.close_gate(stream.handle)
        waiter = threading.Thread(target=stream.synchronize)
        waiter.start()
        opened.append(waiter.is_alive())
        cuda.open_gate()
        waiter.join()
        stream.synchronize()
        assert opened == [True]


class TestMemory:
    def test_pinned_memory_is_the_hosts(self, device):
        stream, pinned = device.create_stream(0), device.allocate_host(16)
        assert pinned.device == -1
        buffer = holding(device, 2.0, stream)
        device.download(pinned.address, buffer, 16, stream)
        stream.synchronize()
        assert (at(pinned.address, (4,)) == 2).all()

    def test_copies_choose_their_way(self, cuda, pair):
        one, two = pair
        stream = one.create_stream(0)
        source, pinned = holding(one, 2.0, stream), one.allocate_host(16)
        targets = [one.allocate(16), two.allocate(16), pinned]
        for target in targets:
            one.copy(target, source, 16, stream)
        stream.synchronize()
        assert all((at(target.address, (4,)) == 2).all() for target in targets)
        assert cuda.calls("cuMemcpyDtoDAsync") == 1
        assert cuda.calls("cuMemcpyPeerAsync") == 1

    def test_upload_and_download_take_memory_of_any_device(self, pair):
        one, two = pair
        stream, other = one.create_stream(0), two.create_stream(0)
        theirs = holding(two, 3.0, other)
        other.synchronize()
        buffer = one.allocate(16)
        one.upload(buffer, theirs.address, 16, stream)
        stream.synchronize()
        assert (at(buffer.address, (4,)) == 3).all()

    def test_out_of_memory_says_what_is_left_and_leaves_nothing(self, cuda):
        cuda.reset(memory_bytes=1000)
        device = CudaDevice(0)
        device.allocate(600)
        with pytest.raises(
            OutOfMemoryError,
            match=r"device 0 memory: got no 500 bytes, 400 of 1000 are left\. Lower the batch",
        ):
            device.allocate(500)
        device.allocate(400)
        cuda.fail("cuMemHostAlloc", 2)
        with pytest.raises(OutOfMemoryError, match="pinned host memory: got no 8 bytes"):
            device.allocate_host(8)
        device.close()
        assert cuda.live() == {}

    def test_an_address_that_is_nobodys(self, device):
        stream, buffer = device.create_stream(0), device.allocate(16)
        with pytest.raises(BackendError, match=r"cuMemcpyAsync on device 0.*INVALID_VALUE"):
            device.upload(buffer, 0, 16, stream)
        with pytest.raises(BackendError, match="INVALID_VALUE"):
            device.upload(buffer, VALUES[1.0].ctypes.data, 17, stream)
        stream.synchronize()

    def test_buffers_of_other_backends_are_refused(self, device):
        with pytest.raises(BackendError, match="buffer: got a SimpleNamespace"):
            device.upload(SimpleNamespace(), 0, 16, device.create_stream(0))


class TestPeers:
    def test_both_ways_once_and_again(self, cuda, pair):
        assert [device.peers for device in pair] == [{1: True}, {0: True}]
        assert cuda.calls("cuCtxEnablePeerAccess") == 2
        again = open_devices([0, 1, 0])
        assert list(again) == [0, 1]
        assert again[0].peers == {1: True}
        for device in again.values():
            device.close()

    def test_no_way_is_a_fact_and_a_warning(self, cuda, caplog):
        cuda.reset(devices=2)
        cuda.forbid_peer(0, 1)
        with caplog.at_level(logging.WARNING):
            devices = open_devices([0, 1])
        assert devices[0].facts()["peer"] == {"0->1": False}
        assert devices[1].facts()["peer"] == {"1->0": True}
        assert [record.getMessage().split(":")[0] for record in caplog.records] == [
            "no peer access 0->1"
        ]
        for device in devices.values():
            device.close()

    def test_a_limit_of_peers_is_no_error(self, cuda):
        cuda.fail("cuCtxEnablePeerAccess", 711)
        devices = open_devices([0, 1])
        assert devices[0].peers == {1: False}
        for device in devices.values():
            device.close()

    def test_a_device_that_is_not_there_leaves_none_open(self, cuda):
        with pytest.raises(DeviceUnavailableError, match="got 5, expected one of 0, 1"):
            open_devices([0, 1, 5])
        assert cuda.live() == {}


class TestBorrowed:
    def test_a_stream_of_the_primary_context(self, device):
        with device.current():
            handle = int(ok(driver.cuStreamCreate(1)))
        theirs = device.borrow_stream(handle)
        assert (theirs.handle, theirs.launchable, theirs.device) == (handle, True, 0)
        buffer = holding(device, 2.0, theirs)
        theirs.close()
        theirs.close()
        again = device.borrow_stream(handle)  # close left it alone
        again.synchronize()
        assert (at(buffer.address, (4,)) == 2).all()
        with device.current():
            ok(driver.cuStreamDestroy(handle))

    @pytest.mark.parametrize("handle", [0, 1, 2])
    def test_default_streams_of_the_primary_context(self, device, handle):
        theirs = device.borrow_stream(handle)
        assert theirs.launchable
        buffer = holding(device, 2.0, theirs)
        theirs.synchronize()
        assert (at(buffer.address, (4,)) == 2).all()
        theirs.close()

    @pytest.mark.parametrize("default", [True, False])
    def test_a_foreign_context_of_the_same_device_both_ways(self, cuda, device, default):
        """As ``Executor.launch`` does: behind their work, and before what they enqueue next."""
        context = foreign_context(0)
        for seed in range(30):
            cuda.seed(seed)
            raw = driver.CUstream(1) if default else ok(driver.cuStreamCreate(1))
            theirs, memory = device.borrow_stream(int(raw)), ok(driver.cuMemAlloc(16))
            assert not theirs.launchable
            main, entry, buffer = device.create_stream(0), device.create_event(), None
            ok(driver.cuMemcpyAsync(memory, VALUES[3.0].ctypes.data, 16, raw))
            theirs.record(entry)
            main.wait(entry)
            buffer, end = device.allocate(16), filled(0.0)
            device.upload(buffer, int(memory), 16, main)
            main.record(entry)
            theirs.wait(entry)
            ok(driver.cuMemcpyAsync(end.ctypes.data, buffer.address, 16, raw))
            ok(driver.cuStreamSynchronize(raw))
            assert (end == 3).all()
            entry.close()
            theirs.close()
        assert int(ok(driver.cuCtxGetCurrent())) == int(context)
        ok(driver.cuCtxDestroy(context))

    def test_an_event_keeps_one_twin_for_each_foreign_context(self, cuda, device):
        entry, main = device.create_event(), device.create_stream(0)
        contexts = [foreign_context(0), foreign_context(0)]
        streams = []
        for context in contexts:
            ok(driver.cuCtxSetCurrent(context))
            streams.append(int(ok(driver.cuStreamCreate(1))))
        events = cuda.live()["events"]
        for _ in range(3):
            for handle in streams:
                device.borrow_stream(handle).record(entry)
            main.record(entry)
            main.synchronize()
        assert cuda.live()["events"] == events + 2
        ok(driver.cuCtxDestroy(contexts[1]))  # with the twin in it
        entry.close()
        assert cuda.live().get("events", 0) == events - 1
        ok(driver.cuCtxDestroy(contexts[0]))

    def test_a_stream_of_another_device(self, pair):
        one, two = pair
        context = foreign_context(1)
        handles = (two.create_stream(0).handle, int(ok(driver.cuStreamCreate(1))))
        for handle in handles:
            with pytest.raises(
                DeviceUnavailableError, match="got one of device 1, expected device 0"
            ):
                one.borrow_stream(handle)
        ok(driver.cuCtxDestroy(context))

    def test_a_default_stream_is_of_this_device_whatever_is_current(self, pair):
        one, two = pair
        for handle in (0, 1, 2):
            with two.current():
                stream = one.borrow_stream(handle)
            assert (stream.device, stream.launchable) == (0, True)

    def test_a_handle_that_is_no_stream(self, device):
        with pytest.raises(InputError, match=r"stream 0x12345: got a handle that the driver does"):
            device.borrow_stream(0x12345)


class TestContext:
    """Whatever is current in the calling thread before a call is current after it."""

    def use(self, device) -> None:
        stream, event = device.create_stream(0), device.create_event()
        buffer, pinned = device.allocate(16), device.allocate_host(16)
        device.upload(buffer, VALUES[1.0].ctypes.data, 16, stream)
        device.copy(buffer, buffer, 16, stream)
        stream.record(event)
        stream.wait(event)
        device.download(pinned.address, buffer, 16, stream)
        graph = device.capture(lambda: device.copy(buffer, buffer, 16, stream), stream).graph
        graph.launch(stream)
        stream.synchronize()
        event.synchronize()
        with pytest.raises(BackendError):
            device.allocate(1 << 40)
        with pytest.raises(BackendError):
            device.upload(buffer, 0, 16, stream)
        assert not device.capture(lambda: device.allocate(16), stream).graph
        borrowed = device.borrow_stream(stream.handle)
        device.facts()
        for thing in (borrowed, graph, event, buffer, pinned, stream):
            thing.close()

    @pytest.mark.parametrize("current", ["none", "primary", "foreign", "other device"])
    def test_it_is_never_changed(self, cuda, pair, current):
        one, two = pair
        before, pushes = None, cuda.calls("cuCtxPushCurrent")
        if current == "primary":
            before = one.context.raw
        elif current == "other device":
            before = two.context.raw
        if current == "foreign":
            before = foreign_context(0)
        elif before is not None:
            ok(driver.cuCtxPushCurrent(before))
        pushes = cuda.calls("cuCtxPushCurrent")
        self.use(one)
        assert int(ok(driver.cuCtxGetCurrent()) or 0) == int(before or 0)
        assert cuda.depth == (0 if before is None else 1)
        assert (cuda.calls("cuCtxPushCurrent") == pushes) == (current == "primary")
        if before is not None:
            ok(driver.cuCtxPopCurrent())
        if current == "foreign":
            ok(driver.cuCtxDestroy(before))

    def test_current_is_for_calls_of_others_and_nests(self, cuda, pair):
        one, two = pair
        with one.current():
            assert int(ok(driver.cuCtxGetCurrent())) == one.context.handle
            with two.current(), one.current():
                assert int(ok(driver.cuCtxGetCurrent())) == one.context.handle
            assert int(ok(driver.cuCtxGetCurrent())) == one.context.handle
        assert cuda.depth == 0

    def test_an_interrupt_in_a_call_restores_it(self, cuda, device):
        def interrupted() -> None:
            assert int(ok(driver.cuCtxGetCurrent())) == device.context.handle
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            device.context.call(interrupted)
        assert cuda.depth == 0

    def test_an_exception_inside_restores_it(self, cuda, device):
        with pytest.raises(ZeroDivisionError), device.current():
            1 / 0  # noqa: B018
        assert cuda.depth == 0

    def test_a_failed_push_is_an_error_and_pops_nothing(self, cuda, device):
        context = foreign_context(0)
        cuda.fail("cuCtxPushCurrent", 201)
        with pytest.raises(BackendError, match=r"cuCtxPushCurrent on device 0.*INVALID_CONTEXT"):
            device.create_event()
        assert int(ok(driver.cuCtxGetCurrent())) == int(context)
        ok(driver.cuCtxDestroy(context))


class TestLost:
    def test_every_later_call_says_the_same_and_close_is_quiet(self, cuda):
        device, other = CudaDevice(0), CudaDevice(1)
        stream, event, buffer = device.create_stream(0), device.create_event(), device.allocate(16)
        graph = device.capture(lambda: device.copy(buffer, buffer, 16, stream), stream).graph
        pinned = device.allocate_host(16)
        cuda.lose(0, 719)
        calls = (
            stream.synchronize,
            lambda: stream.record(event),
            lambda: stream.wait(event),
            event.synchronize,
            lambda: device.allocate(16),
            lambda: device.upload(buffer, VALUES[1.0].ctypes.data, 16, stream),
            lambda: device.create_stream(0),
            lambda: device.borrow_stream(stream.handle),
            lambda: device.capture(lambda: None, stream),
            lambda: graph.launch(stream),
        )
        messages = set()
        for call in calls:
            with pytest.raises(DeviceLostError) as caught:
                call()
            messages.add(str(caught.value))
            assert caught.value.device == 0
        assert len(messages) == 1
        assert "cuStreamSynchronize on device 0: got CUDA_ERROR_LAUNCH_FAILED" in messages.pop()
        other.create_stream(0).synchronize()
        for thing in (graph, pinned, buffer, event, stream, device, device, other):
            thing.close()
        assert cuda.live() == {}

    def test_an_error_on_the_device_surfaces_where_somebody_waits(self, cuda):
        device = CudaDevice(0)
        stream = device.create_stream(0)
        with device.current():
            cuda.launch(stream.handle, lambda: 1 / 0)
        with pytest.raises(DeviceLostError):
            stream.synchronize()
        assert isinstance(cuda.errors.pop(), ZeroDivisionError)
        device.close()
        assert cuda.live() == {}

    def test_a_device_that_is_lost_by_its_release(self, cuda):
        device = CudaDevice(0)
        cuda.fail("cuDevicePrimaryCtxRelease", 4)
        device.close()
        device.close()


class TestLifetime:
    def test_everything_can_be_closed_twice_and_is_refused_afterwards(self, cuda, device):
        stream, event, buffer = device.create_stream(0), device.create_event(), device.allocate(16)
        graph = device.capture(lambda: device.copy(buffer, buffer, 16, stream), stream).graph
        other = device.create_stream(0)
        for _ in range(2):
            for thing in (graph, event, buffer, stream):
                thing.close()
        assert cuda.live() == {"streams": 1, "retained": 2}
        for call, what in (
            (stream.synchronize, "stream"),
            (lambda: stream.record(device.create_event()), "stream"),
            (lambda: other.record(event), "event"),
            (lambda: other.wait(event), "event"),
            (event.synchronize, "event"),
            (lambda: device.upload(buffer, 1, 1, other), "buffer"),
            (lambda: graph.launch(other), "graph"),
        ):
            with pytest.raises(BackendError, match=f"{what} of device 0: it is closed"):
                call()

    def test_close_frees_what_was_left_open(self, cuda):
        device = CudaDevice(0, trace=True)
        stream = device.create_stream(0)
        device.create_event()
        holding(device, 1.0, stream)
        device.allocate_host(16)
        device.close()
        assert cuda.live() == {}

    def test_what_was_closed_is_forgotten(self, cuda, device):
        for _ in range(3000):
            device.create_event().close()
        assert len(device._made) < 600

    def test_the_primary_context_is_released_once(self, cuda):
        one, same = CudaDevice(0), CudaDevice(0)
        assert cuda.live() == {"retained": 2}
        one.close()
        one.close()
        assert cuda.live() == {"retained": 1}
        same.create_stream(0).synchronize()
        same.close()

    def test_a_failing_close_closes_the_rest(self, cuda):
        device = CudaDevice(0)
        for _ in range(3):
            device.create_event()
        device.allocate(16)
        cuda.fail("cuEventDestroy", 400)
        with pytest.raises(BackendError, match="cuEventDestroy"):
            device.close()
        assert cuda.live() == {}

    def test_threads_use_one_device_at_the_same_time(self, device):
        failures = []

        def work(value: float) -> None:
            stream, data = device.create_stream(0), filled(value)
            for _ in range(30):
                buffer, result = device.allocate(16), np.zeros(4, np.float32)
                device.upload(buffer, data.ctypes.data, 16, stream)
                device.download(result.ctypes.data, buffer, 16, stream)
                stream.synchronize()
                if not (result == value).all():
                    failures.append(value)
                buffer.close()

        threads = [threading.Thread(target=work, args=(float(i),)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
