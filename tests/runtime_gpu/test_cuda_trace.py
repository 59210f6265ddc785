"""Timelines over the stand-in driver, whose clock counts operations."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest

from parnet_deploy.runtime.cuda.device import CudaDevice, open_devices
from tests.runtime_gpu.toys import filled

ONE = filled(1.0)


@pytest.fixture
def device(cuda):
    device = CudaDevice(0, trace=True)
    yield device
    device.close()
    assert cuda.live() == {}


def test_operations_are_timed_in_their_order(cuda, device):
    stream = device.create_stream(3)
    buffer, other, result = device.allocate(16), device.allocate(16), filled(0.0)
    before_us = time.perf_counter_ns() / 1000 - 1e6
    device.upload(buffer, ONE.ctypes.data, 16, stream)
    device.copy(other, buffer, 16, stream)
    with stream.traced("run", "stem0"), device.current():
        cuda.launch(stream.handle, lambda: None)
    device.download(result.ctypes.data, other, 16, stream)
    assert device.timeline() == ()  # nothing has finished
    stream.synchronize()
    entries = device.timeline()
    assert [(entry.op, entry.name) for entry in entries] == [
        ("copy", "host -> device 0"),
        ("copy", "device 0 -> 0"),
        ("run", "stem0"),
        ("copy", "device 0 -> host"),
    ]
    for entry in entries:
        assert (entry.device, entry.stream, entry.simulated) == (0, "lane3", False)
        assert entry.end_us - entry.start_us == pytest.approx(2.0, abs=1e-3)  # itself and the end
        assert entry.start_us > before_us
    for first, second in pairwise(entries):
        assert second.start_us >= first.end_us
    assert device.timeline() == entries


def test_devices_share_the_axis_of_the_host(cuda):
    before_us = time.perf_counter_ns() / 1000
    devices = open_devices([0, 1], trace=True)
    after_us = time.perf_counter_ns() / 1000
    for device in devices.values():
        stream = device.create_stream(0)
        device.upload(device.allocate(16), ONE.ctypes.data, 16, stream)
        stream.synchronize()
        (entry,) = device.timeline()
        assert before_us < entry.start_us < after_us + 1e4  # the clock counts, it does not run
        device.close()
    assert cuda.live() == {}


def test_a_traced_device_has_no_graphs_and_says_why(device):
    stream = device.create_stream(0)
    graph, why = device.capture(lambda: None, stream)
    assert graph is None
    assert why.startswith("tracing")


def test_events_are_used_again_and_only_so_many_operations_wait(cuda, device, monkeypatch):
    stream, buffer = device.create_stream(0), device.allocate(16)
    for _ in range(50):
        for _ in range(10):
            device.upload(buffer, ONE.ctypes.data, 16, stream)
        stream.synchronize()
        device.timeline()
    assert cuda.live()["events"] < 50
    monkeypatch.setattr("parnet_deploy.runtime.cuda.trace.TIMELINE_LENGTH", 100)
    for _ in range(300):
        device.upload(buffer, ONE.ctypes.data, 16, stream)
    assert cuda.live()["events"] < 250
    stream.synchronize()
    assert len(device.timeline()) >= 500 + 100


def test_only_so_many_entries_are_kept(cuda, monkeypatch):
    monkeypatch.setattr("parnet_deploy.runtime.cuda.trace.TIMELINE_LENGTH", 5)
    device = CudaDevice(0, trace=True)
    stream, buffer = device.create_stream(0), device.allocate(16)
    for _ in range(8):
        device.upload(buffer, ONE.ctypes.data, 16, stream)
        stream.synchronize()
        device.timeline()
    assert len(device.timeline()) == 5
    device.close()


def test_times_stay_on_one_axis_when_the_anchor_moves(cuda, device, monkeypatch):
    monkeypatch.setattr("parnet_deploy.runtime.cuda.trace._ANCHOR_MS", 0.005)
    stream, buffer = device.create_stream(0), device.allocate(16)
    for _ in range(20):
        device.upload(buffer, ONE.ctypes.data, 16, stream)
        stream.synchronize()
        device.timeline()
    starts = [entry.start_us for entry in device.timeline()]
    # Each operation counts three: the start event, itself, the end event.
    gaps = [later - earlier for earlier, later in pairwise(starts)]
    assert gaps == pytest.approx([3.0] * 19, abs=1e-3)


def test_an_operation_that_fails_leaves_no_entry(cuda, device):
    stream = device.create_stream(0)
    with pytest.raises(ZeroDivisionError), stream.traced("run", "head"):
        1 / 0  # noqa: B018
    stream.synchronize()
    assert device.timeline() == ()


def test_a_lost_device_shows_what_was_read_before(cuda, device):
    stream, buffer = device.create_stream(0), device.allocate(16)
    device.upload(buffer, ONE.ctypes.data, 16, stream)
    stream.synchronize()
    seen = device.timeline()
    device.upload(buffer, ONE.ctypes.data, 16, stream)
    cuda.lose(0)
    assert device.timeline() == seen
    assert len(seen) == 1


def test_without_trace_nothing_is_timed(cuda):
    device = CudaDevice(0)
    stream = device.create_stream(0)
    with stream.traced("run", "head"):
        device.upload(device.allocate(16), ONE.ctypes.data, 16, stream)
    stream.synchronize()
    assert device.timeline() == ()
    assert cuda.live().get("events") is None
    device.close()
