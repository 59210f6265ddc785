"""The simulator itself: what it allows, what it notices, and that it is deterministic."""

from __future__ import annotations

import numpy as np
import pytest

from parnet_deploy.errors import (
    BackendError,
    DeviceLostError,
    DeviceUnavailableError,
    ExecutionError,
)
from parnet_deploy.placement import streams
from parnet_deploy.runtime.device import Tensor
from parnet_deploy.runtime.fake.backend import FakeBackend, FakeEngine
from parnet_deploy.runtime.fake.device import FakeDevice
from parnet_deploy.runtime.fake.memory import own_buffer
from parnet_deploy.runtime.fake.options import FakeOptions, FaultPlan
from parnet_deploy.runtime.fake.simulator import Simulator
from parnet_deploy.runtime.host import HostDevice
from tests.runtime.runtime_toys import (
    SPECS,
    fake_executor,
    fixed_size,
    images,
    make_plan,
    run,
    segment_kernel,
)

SPEC = SPECS[2]


def machine(count: int = 2, **more) -> list[FakeDevice]:
    options = FakeOptions(**more)
    simulator = Simulator(seed=options.seed, jitter_us=options.jitter_us, faults=options.faults)
    return [FakeDevice(ordinal, simulator, options) for ordinal in range(count)]


def filled(device: FakeDevice, value: float, stream) -> object:
    buffer = device.allocate(16)
    device.upload(buffer, ONES[value].ctypes.data, 16, stream)
    return buffer


ONES = {value: np.full(4, value, np.float32) for value in (1.0, 2.0, 3.0)}


class TestTime:
    def test_nothing_happens_before_somebody_synchronises(self):
        (device,) = machine(1)
        stream = device.create_stream(0)
        buffer = filled(device, 1.0, stream)
        assert np.isnan(buffer.memory.data).all()
        assert device.timeline() == ()
        stream.synchronize()
        np.testing.assert_array_equal(buffer.memory.data, ONES[1.0])
        assert len(device.timeline()) == 1

    def test_synchronising_one_stream_leaves_others_in_flight(self):
        (device,) = machine(1, bytes_per_us=1.0, launch_us=0.0)
        short, long = device.create_stream(0), device.create_stream(1)
        big = np.ones(1000, np.float32)
        target = device.allocate(4000)
        device.upload(target, big.ctypes.data, 4000, long)
        filled(device, 1.0, short)
        short.synchronize()
        assert device.simulator.now_us == 16.0
        assert np.isnan(target.memory.data).all()
        long.synchronize()
        assert device.simulator.now_us == 4000.0

    def test_a_seed_gives_the_same_timeline_and_another_seed_another(self):
        def timeline(seed: int):
            options = FakeOptions(seed=seed, jitter_us=50.0)
            executor = fake_executor(SPECS[3], streams(SPECS[3], (0, 1)), options)
            run(executor, SPECS[3], images(SPECS[3]))
            return executor.timeline()

        assert timeline(1) == timeline(1)
        assert timeline(1) != timeline(2)

    def test_durations_follow_from_arithmetic_and_the_made_up_rate(self):
        options = FakeOptions(macs_per_us=1.0, launch_us=0.0)
        executor = fake_executor(SPEC, streams(SPEC), options, max_batch=2)
        run(executor, SPEC, images(SPEC, 2))
        stem = next(entry for entry in executor.timeline() if entry.name == "stem0")
        assert stem.end_us - stem.start_us == 2 * SPEC.macs(16, 16)["stem0"]


class TestEvents:
    def test_an_event_orders_two_streams_of_two_devices(self):
        for seed in range(30):
            one, two = machine(2, seed=seed, jitter_us=100.0)
            producer, consumer = one.create_stream(0), two.create_stream(0)
            source, target, end = filled(one, 2.0, producer), two.allocate(16), two.allocate(16)
            event = one.create_event()
            one.copy(target, source, 16, producer)
            producer.record(event)
            consumer.wait(event)
            two.copy(end, target, 16, consumer)
            consumer.synchronize()
            np.testing.assert_array_equal(end.memory.data, ONES[2.0])

    def test_without_the_event_the_result_is_nan_for_some_seed(self):
        results = []
        for seed in range(30):
            (device,) = machine(1, seed=seed, jitter_us=100.0)
            producer, consumer = device.create_stream(0), device.create_stream(1)
            source, end = filled(device, 2.0, producer), device.allocate(16)
            device.copy(end, source, 16, consumer)
            consumer.synchronize()
            results.append(bool(np.isnan(end.memory.data).all()))
        assert any(results)

    def test_a_wait_refers_to_the_record_before_it(self):
        (device,) = machine(1)
        first, second = device.create_stream(0), device.create_stream(1)
        event = device.create_event()
        second.wait(event)  # never recorded: no wait
        first.record(event)
        second.wait(event)
        filled(device, 1.0, first)
        first.record(event)
        second.synchronize()
        assert device.timeline() == ()  # the second record was not waited for
        event.synchronize()
        assert len(device.timeline()) == 1

    def test_what_is_read_while_it_is_written_is_nan(self):
        """A reader that starts first and a writer that comes in between: both look wrong."""
        (device,) = machine(1, bytes_per_us=1.0, launch_us=0.0)
        slow, fast = device.create_stream(0), device.create_stream(1)
        source, end = device.allocate(4000), device.allocate(4000)
        big = np.ones(1000, np.float32)
        device.upload(source, big.ctypes.data, 4000, slow)
        slow.synchronize()
        device.copy(end, source, 4000, slow)
        device.upload(source, ONES[2.0].ctypes.data, 16, fast)
        slow.synchronize()
        assert np.isnan(end.memory.data).all()

    def test_two_writers_at_once_leave_nan(self):
        (device,) = machine(1, bytes_per_us=1.0, launch_us=0.0)
        target = device.allocate(16)
        streams_ = [device.create_stream(lane) for lane in (0, 1)]
        for value, stream in zip((1.0, 2.0), streams_, strict=True):
            device.upload(target, ONES[value].ctypes.data, 16, stream)
        for stream in streams_:
            stream.synchronize()
        assert np.isnan(target.memory.data).all()

    def test_handles_of_others_are_refused(self):
        one, two = machine(2)
        stream = one.create_stream(0)
        with pytest.raises(BackendError, match="event: got one of device 1, expected device 0"):
            stream.record(two.create_event())
        with pytest.raises(BackendError, match="got a HostEvent"):
            stream.wait(HostDevice().create_event())
        with pytest.raises(BackendError, match="got a HostBuffer"):
            own_buffer(HostDevice().allocate(4))
        with pytest.raises(DeviceUnavailableError, match="has no such stream"):
            one.borrow_stream(5)


class TestCallersMemory:
    def test_memory_of_any_device_is_read_and_written_by_its_address(self):
        one, two = machine(2, jitter_us=100.0)
        producer, stream = two.create_stream(0), one.create_stream(0)
        source, target, end = filled(two, 2.0, producer), one.allocate(16), one.allocate(16)
        assert one.locate(source.address) == two.locate(source.address) == (1, True)
        producer.synchronize()
        one.upload(target, source.address, 16, stream)
        one.download(end.address, target, 16, stream)
        stream.synchronize()
        np.testing.assert_array_equal(end.memory.data, ONES[2.0])

    def test_the_host_is_not_watched(self):
        (device,) = machine(1)
        assert device.locate(ONES[1.0].ctypes.data) == (None, False)

    def test_reading_before_it_is_written_gives_nan_for_some_seed(self):
        results = []
        for seed in range(30):
            (device,) = machine(1, seed=seed, jitter_us=100.0)
            source, target = filled(device, 2.0, device.create_stream(0)), device.allocate(16)
            reader = device.create_stream(1)
            device.upload(target, source.address, 16, reader)
            reader.synchronize()
            results.append(bool(np.isnan(target.memory.data).all()))
        assert any(results)

    def test_what_was_freed_is_lost(self):
        (device,) = machine(1)
        stream, source, target = device.create_stream(0), device.allocate(16), device.allocate(16)
        source.close()
        device.upload(target, source.address, 16, stream)
        with pytest.raises(DeviceLostError, match="touched memory that was freed"):
            stream.synchronize()


class TestSticky:
    def check_lost(self, device: FakeDevice, stream, message: str) -> None:
        with pytest.raises(DeviceLostError, match=message):
            stream.synchronize()
        calls = (
            stream.synchronize,
            lambda: device.allocate(4),
            lambda: device.create_stream(0),
            device.create_event,
        )
        for call in calls:
            with pytest.raises(DeviceLostError, match=message):
                call()

    def test_memory_of_another_device(self):
        one, two = machine(2)
        stream = one.create_stream(0)
        one.upload(two.allocate(16), ONES[1.0].ctypes.data, 16, stream)
        self.check_lost(one, stream, "device 0: .* touched memory of device 1")
        two.allocate(16)  # the other device lives

    def test_memory_that_was_freed(self):
        (device,) = machine(1)
        stream = device.create_stream(0)
        buffer = filled(device, 1.0, stream)
        buffer.close()
        buffer.close()
        self.check_lost(device, stream, "touched memory that was freed")

    def test_a_lost_device_lets_others_go_on_with_its_error(self):
        one, two = machine(2, faults=FaultPlan(lose_device={0: 0}))
        producer, consumer = one.create_stream(0), two.create_stream(0)
        event = one.create_event()
        filled(one, 1.0, producer)
        producer.record(event)
        consumer.wait(event)
        with pytest.raises(DeviceLostError, match="device 0: it was lost"):
            consumer.synchronize()
        consumer.synchronize()
        filled(two, 1.0, consumer)
        consumer.synchronize()


class TestEngines:
    def engine(self, device: FakeDevice, kernel) -> tuple[FakeEngine, object]:
        segment = streams(SPEC).segments[0]
        engine = FakeEngine(segment, kernel, 1, device)
        tensors = {
            name: Tensor(buffer=device.allocate(4096), shape=(1, *SPEC.tensors[name].shape(16, 16)))
            for name in ("image", "x0")
        }
        return engine, engine.bind(tensors, 0)

    def test_a_kernel_that_raises_is_an_execution_error(self):
        (device,) = machine(1)
        engine, binding = self.engine(device, lambda inputs: inputs["nothing"])
        stream = device.create_stream(0)
        engine.enqueue(binding, stream)
        with pytest.raises(ExecutionError, match="run stem0: KeyError"):
            stream.synchronize()
        engine.close()
        device.close()

    def test_a_kernel_with_a_wrong_shape_is_an_execution_error(self):
        (device,) = machine(1)
        engine, binding = self.engine(device, lambda inputs: {"x0": np.zeros(3, np.float32)})
        stream = device.create_stream(0)
        engine.enqueue(binding, stream)
        with pytest.raises(ExecutionError, match=r"segment stem0: no x0 of shape \(1, 2, 4, 4\)"):
            stream.synchronize()

    def test_the_callers_memory_cannot_be_bound_in_place(self):
        (device,) = machine(1)
        _, binding = self.engine(device, dict)
        with pytest.raises(BackendError, match="tensor image: a fake device copies it"):
            binding.set_address("image", 64)

    def test_the_backend_names_its_times_simulated(self):
        plan = make_plan(streams(SPEC, (0, 1)), fixed_size(SPEC), backend="fake")
        loaded = FakeBackend(None, segment_kernel(SPEC)).load(SPEC, plan, {})
        assert loaded.facts["times"] == "simulated, from made-up rates"
        assert sorted(loaded.devices) == [0, 1]
        loaded.close()
        loaded.close()


class TestCapture:
    def test_a_wait_for_work_outside_is_refused(self):
        (device,) = machine(1, graphs=True)
        stream, event = device.create_stream(0), device.create_event()
        stream.record(event)
        with pytest.raises(ExecutionError, match="recorded outside it"):
            device.capture(lambda: stream.wait(event), stream)
        filled(device, 1.0, stream)  # the capture is over
        stream.synchronize()

    def test_a_stream_that_does_not_fork_from_the_origin_is_refused(self):
        (device,) = machine(1, graphs=True)
        origin, other = device.create_stream(0), device.create_stream(1)
        with pytest.raises(ExecutionError, match="does not fork from its origin"):
            device.capture(lambda: filled(device, 1.0, other) and None, origin)

    def test_a_replay_does_the_work_again(self):
        (device,) = machine(1, graphs=True)
        stream = device.create_stream(0)
        source, target = filled(device, 1.0, stream), device.allocate(16)
        graph, _ = device.capture(lambda: device.copy(target, source, 16, stream), stream)
        stream.synchronize()
        assert np.isnan(target.memory.data).all()  # capturing does not run
        graph.launch(stream)
        stream.synchronize()
        np.testing.assert_array_equal(target.memory.data, ONES[1.0])
        graph.close()
        with pytest.raises(ExecutionError, match="graph: it is closed"):
            graph.launch(stream)

    def test_it_may_be_launched_into_another_stream(self):
        (device,) = machine(1, graphs=True)
        origin, other = device.create_stream(0), device.create_stream(1)
        source, target = filled(device, 1.0, origin), device.allocate(16)
        origin.synchronize()
        graph, _ = device.capture(lambda: device.copy(target, source, 16, origin), origin)
        graph.launch(other)
        origin.synchronize()
        assert np.isnan(target.memory.data).all()
        other.synchronize()
        np.testing.assert_array_equal(target.memory.data, ONES[1.0])

    def test_a_fork_that_is_not_joined_is_refused(self):
        (device,) = machine(1, graphs=True)
        origin, other = device.create_stream(0), device.create_stream(1)
        fork, join = device.create_event(), device.create_event()
        source, target = filled(device, 1.0, origin), device.allocate(16)

        def work(joined: bool, late: bool) -> None:
            origin.record(fork)
            other.wait(fork)
            device.copy(target, source, 16, other)
            other.record(join)
            if late:
                device.copy(target, source, 16, other)
            if joined:
                origin.wait(join)

        for joined, late in ((False, False), (True, True)):
            with pytest.raises(ExecutionError, match="does not join its origin"):
                device.capture(lambda j=joined, late=late: work(j, late), origin)
        assert device.capture(lambda: work(True, False), origin).graph is not None
