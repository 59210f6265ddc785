"""The executor on fake devices: whatever overlaps, the numbers are the same."""

from __future__ import annotations

import random
import threading
from collections import OrderedDict
from contextlib import suppress
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parnet_deploy.errors import (
    BackendError,
    DeviceLostError,
    ExecutionError,
    InputError,
    OutOfMemoryError,
    SpecError,
)
from parnet_deploy.input_size import InputSize
from parnet_deploy.placement import Placement, streams
from parnet_deploy.runtime.executor import Executor
from parnet_deploy.runtime.fake.backend import FakeBackend
from parnet_deploy.runtime.fake.options import FakeOptions, FaultPlan
from parnet_deploy.runtime.slot import BOUND_SHAPES
from tests.runtime.runtime_toys import (
    PLACEMENTS,
    SPECS,
    fake_executor,
    fixed_size,
    images,
    make_plan,
    random_placement,
    reference,
    run,
    segment_kernel,
)
from tests.runtime.test_program import waits, without_step

JITTER_US = 50.0


def jittered(seed: int = 0, **more) -> FakeOptions:
    return FakeOptions(seed=seed, jitter_us=JITTER_US, **more)


@settings(max_examples=150, deadline=None)
@given(
    count=st.sampled_from(sorted(SPECS)),
    seed=st.integers(0, 2**32),
    devices=st.integers(1, 4),
    lanes=st.integers(1, 4),
    batches=st.lists(st.integers(1, 3), min_size=2, max_size=4),
    graphs=st.booleans(),
    again=st.sampled_from([0.0, 0.4]),
)
def test_any_placement_in_any_order_equals_the_sequential_network(
    count, seed, devices, lanes, batches, graphs, again
):
    spec = SPECS[count]
    placement = random_placement(spec, random.Random(seed), devices, lanes, again)
    executor = fake_executor(spec, placement, jittered(seed, graphs=graphs), max_batch=3)
    for index, batch in enumerate(batches):
        x = images(spec, batch, seed=index)
        np.testing.assert_array_equal(run(executor, spec, x), reference(spec, x))
    executor.close()


@pytest.mark.parametrize("name", PLACEMENTS)
def test_the_known_placements_equal_the_sequential_network_for_many_delays(name):
    spec = SPECS[3]
    x = [images(spec, seed=seed) for seed in range(3)]
    expected = [reference(spec, one) for one in x]
    for seed in range(60):
        executor = fake_executor(spec, PLACEMENTS[name](spec), jittered(seed))
        for one, logits in zip(x, expected, strict=True):
            np.testing.assert_array_equal(run(executor, spec, one), logits)
        executor.close()


def back_to_back(
    spec, placement, seed: int, program=None, calls: int = 3, graphs: bool = False
) -> bool:
    """Launch calls one behind the other in the caller's stream; whether all logits are right."""
    executor = fake_executor(spec, placement, jittered(seed, graphs=graphs), program=program)
    device = executor._devices[executor.program.main.device]
    stream = device.create_stream(0)
    other = device.create_stream(1)
    memory = [np.zeros((1, 3, *fixed_size(spec).low), np.float32) for _ in range(calls)]
    results = [np.full((1, spec.num_classes), np.nan, np.float32) for _ in range(calls)]
    x = [images(spec, seed=index) for index in range(calls)]
    for source, target, logits in zip(x, memory, results, strict=True):
        # The image gets to where the network reads it behind other work of the caller's stream.
        buffer = device.allocate(source.nbytes)
        device.upload(buffer, source.ctypes.data, source.nbytes, stream)
        device.download(target.ctypes.data, buffer, source.nbytes, stream)
        shape = (1, *source.shape[2:])
        executor.launch(target.ctypes.data, logits.ctypes.data, shape, stream.handle)
    try:
        stream.synchronize()
        copied = [logits.copy() for logits in results]
        executor.close()
    except BackendError:
        return False
    other.close()
    return all(
        np.array_equal(logits, reference(spec, source))
        for logits, source in zip(copied, x, strict=True)
    )


@pytest.mark.parametrize("name", PLACEMENTS)
def test_launches_in_the_callers_stream_need_no_wait_between_them(name):
    spec, graphs = SPECS[3], {"graphs": True}
    assert all(back_to_back(spec, PLACEMENTS[name](spec), seed) for seed in range(20))
    assert all(back_to_back(spec, PLACEMENTS[name](spec), seed, **graphs) for seed in range(20))


@settings(max_examples=150, deadline=None)
@given(
    name=st.sampled_from(sorted(PLACEMENTS)),
    seed=st.integers(0, 2**32),
    graphs=st.booleans(),
    launchable=st.booleans(),
    ways=st.lists(st.sampled_from(["run", "run_on", "launch"]), min_size=2, max_size=7),
)
def test_every_way_to_call_may_follow_any_other(name, seed, graphs, launchable, ways):
    """No call waits for the one before on the host, and none reads or writes too early."""
    spec, rng = SPECS[3], random.Random(seed)
    executor = fake_executor(spec, PLACEMENTS[name](spec), jittered(seed, graphs=graphs))
    device = executor._devices[executor.program.main.device]
    callers = [device.create_stream(lane) for lane in range(3)]
    borrow = device.borrow_stream

    def borrow_foreign(handle):
        stream = borrow(handle)
        stream.launchable = launchable
        return stream

    device.borrow_stream = borrow_foreign
    results = []
    for index, way in enumerate(ways):
        x = images(spec, seed=index)
        logits = np.full((1, spec.num_classes), np.nan, np.float32)
        shape, stream = (1, *x.shape[2:]), rng.choice(callers)
        if way == "run":
            executor.run(x.ctypes.data, logits.ctypes.data, shape)
            np.testing.assert_array_equal(logits, reference(spec, x))
            continue
        memory = np.full_like(x, np.nan)  # filled behind other work of the caller's stream
        buffer = device.allocate(x.nbytes)
        device.upload(buffer, x.ctypes.data, x.nbytes, stream)
        device.download(memory.ctypes.data, buffer, x.nbytes, stream)
        call = executor.run_on if way == "run_on" else executor.launch
        call(memory.ctypes.data, logits.ctypes.data, shape, stream.handle)
        if way == "run_on":
            np.testing.assert_array_equal(logits, reference(spec, x))
        results.append((memory, logits, x))
    for stream in callers:
        stream.synchronize()
    for _, logits, x in results:
        np.testing.assert_array_equal(logits, reference(spec, x))
    executor.close()
    for stream in callers:
        stream.close()


@pytest.mark.parametrize("name", PLACEMENTS)
def test_a_new_shape_leaves_the_work_of_the_call_before_alone(name):
    """Preparing a shape runs it for real; a launch of another shape may still use the buffers."""
    spec, size = SPECS[3], InputSize(low=(32, 32), high=(96, 96))
    warm = FakeOptions(jitter_us=JITTER_US, graphs=True)
    for seed in range(25):
        executor = fake_executor(
            spec, PLACEMENTS[name](spec), replace(warm, seed=seed), max_batch=3, size=size
        )
        for device in executor._devices.values():
            device.capture = partial(warm_up_and_capture, device, device.capture)
        device = executor._devices[executor.program.main.device]
        stream = device.create_stream(0)
        results = []
        for index, (n, side) in enumerate([(1, 32), (2, 32), (1, 96), (3, 64)]):
            x = images(spec, n, seed=index, size=(side, side))
            logits = np.full((n, spec.num_classes), np.nan, np.float32)
            executor.launch(x.ctypes.data, logits.ctypes.data, (n, side, side), stream.handle)
            results.append((logits, x))
        stream.synchronize()
        for logits, x in results:
            np.testing.assert_array_equal(logits, reference(spec, x))
        executor.close()
        stream.close()


def warm_up_and_capture(device, capture, work, stream):
    """As a GPU does: run it for real, wait for it, then capture."""
    work()
    stream.synchronize()
    return capture(work, stream)


@pytest.mark.parametrize("graphs", [False, True])
def test_the_wait_for_the_call_before_is_needed(graphs):
    """Without it, a call in another stream overwrites what the one before still reads."""
    spec = SPECS[3]
    wrong = 0
    for seed in range(60):
        executor = fake_executor(spec, streams(spec), jittered(seed, graphs=graphs))
        device, slot = executor._devices[0], executor._slots[0]
        callers = [device.create_stream(lane) for lane in range(2)]
        results = []
        for index, stream in enumerate(callers):
            x = images(spec, seed=index)
            logits = np.full((1, spec.num_classes), np.nan, np.float32)
            slot._outside = False  # forget the call before
            executor.launch(x.ctypes.data, logits.ctypes.data, (1, *x.shape[2:]), stream.handle)
            results.append((logits, x))
        for stream in callers:
            stream.synchronize()
        wrong += not all(np.array_equal(logits, reference(spec, x)) for logits, x in results)
        slot._outside = True
        executor.close()
    assert bool(wrong) is graphs  # without graphs the main lane orders the calls by itself


@pytest.mark.parametrize("graphs", [False, True])
@pytest.mark.parametrize("name", [name for name in PLACEMENTS if name != "one"])
def test_a_forgotten_wait_is_caught(name, graphs):
    """The proof that the fake devices detect: without any one wait, some order gives it away."""
    spec = SPECS[3]
    placement = PLACEMENTS[name](spec)
    program = fake_executor(spec, placement).program
    for index in waits(program):
        broken = without_step(program, index)
        right = (survives(spec, placement, seed, broken, graphs) for seed in range(200))
        assert not all(right), f"nobody noticed that this is missing: {program.steps[index]}"


def survives(spec, placement, seed: int, program, graphs: bool) -> bool:
    """Whether two launches give the right logits; a capture may refuse the program before."""
    try:
        return back_to_back(spec, placement, seed, program, calls=2, graphs=graphs)
    except ExecutionError:  # from the capture: what runs is caught in there
        return False


def test_slots_run_at_the_same_time_and_share_nothing():
    spec, placement = SPECS[3], streams(SPECS[3], (0, 1))
    executor = fake_executor(spec, placement, jittered(), slots=3, max_batch=2)
    failures = []

    def call(thread: int) -> None:
        for index in range(12):
            x = images(spec, 1 + index % 2, seed=100 * thread + index)
            if not np.array_equal(run(executor, spec, x), reference(spec, x)):
                failures.append((thread, index))

    threads = [threading.Thread(target=call, args=(thread,)) for thread in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    executor.close()
    assert failures == []


class TestSizes:
    spec = SPECS[2]

    def test_every_size_of_a_range_and_every_batch(self):
        size = InputSize(low=(16, 16), high=(48, 32))
        executor = fake_executor(self.spec, streams(self.spec), jittered(), max_batch=3, size=size)
        for height in (16, 32, 48):
            for width in (16, 32):
                for batch in (1, 2, 3):
                    x = images(self.spec, batch, seed=height, size=(height, width))
                    np.testing.assert_array_equal(
                        run(executor, self.spec, x), reference(self.spec, x)
                    )
        executor.close()

    def test_only_so_many_shapes_stay_bound(self):
        size = InputSize(low=(16, 16), high=(16 * 8, 16 * 8))
        executor = fake_executor(self.spec, streams(self.spec), size=size)
        for height in range(16, 129, 16):
            for width in range(16, 129, 16):
                run(executor, self.spec, images(self.spec, size=(height, width)))
        assert len(executor._slots[0].bound) == BOUND_SHAPES
        executor.close()

    @pytest.mark.parametrize(
        ("shape", "message"),
        [
            ((0, 16, 16), "batch: got 0, expected 1 to 2"),
            ((-1, 16, 16), "batch: got -1"),
            ((3, 16, 16), "batch: got 3, expected 1 to 2.*--max-batch"),
            ((1, 32, 16), "input size: got 32x16, expected 16x16"),
            ((1, 8, 16), "input size: got 8x16"),
        ],
    )
    def test_what_was_not_prepared_is_refused_and_nothing_is_touched(self, shape, message):
        executor = fake_executor(self.spec, streams(self.spec), max_batch=2)
        logits = np.full(64, 7, np.float32)
        with pytest.raises(InputError, match=message):
            executor.run(0, logits.ctypes.data, shape)
        assert np.all(logits == 7)
        executor.close()

    def test_no_slots(self):
        with pytest.raises(SpecError, match="slots: got 0"):
            fake_executor(self.spec, streams(self.spec), slots=0)


class TestFaults:
    spec = SPECS[3]
    placement: Placement = streams(SPECS[3], (0, 1, 2))

    def executor(self, **faults) -> Executor:
        options = jittered(faults=FaultPlan(**faults))
        return fake_executor(self.spec, self.placement, options, slots=faults.pop("slots", 1))

    @pytest.mark.parametrize("segment", [s.name for s in streams(SPECS[3]).segments])
    def test_a_delayed_producer_changes_nothing(self, segment):
        executor, x = self.executor(slow_us={segment: 1e6}), images(self.spec)
        np.testing.assert_array_equal(run(executor, self.spec, x), reference(self.spec, x))
        assert max(entry.end_us for entry in executor.timeline()) > 1e6

    @pytest.mark.parametrize("segment", [s.name for s in streams(SPECS[3]).segments])
    def test_an_engine_that_fails_once(self, segment):
        executor, x = self.executor(fail_once=frozenset({segment})), images(self.spec)
        logits = np.full((1, 4), 7, np.float32)
        with pytest.raises(ExecutionError, match=f"segment {segment}: the engine failed"):
            executor.run(x.ctypes.data, logits.ctypes.data, (1, *x.shape[2:]))
        assert np.all(logits == 7)
        np.testing.assert_array_equal(run(executor, self.spec, x), reference(self.spec, x))

    @pytest.mark.parametrize("segment", [s.name for s in streams(SPECS[3]).segments])
    def test_an_engine_that_writes_nan_or_wrong_values_shows(self, segment):
        x = images(self.spec)
        nan = run(self.executor(write_nan=frozenset({segment})), self.spec, x)
        assert np.isnan(nan).all()
        wrong = run(self.executor(write_wrong=frozenset({segment})), self.spec, x)
        assert np.isfinite(wrong).all()
        assert not np.allclose(wrong, reference(self.spec, x))

    @pytest.mark.parametrize("device", [0, 1, 2])
    @pytest.mark.parametrize("operations", [0, 1, 3])
    def test_a_lost_device_is_lost_for_good(self, device, operations):
        executor, x = self.executor(lose_device={device: operations}), images(self.spec)
        for _ in range(2):
            with pytest.raises(DeviceLostError, match=f"device {device}: it was lost"):
                run_often(executor, self.spec, x)
        executor.close()
        executor.close()

    def test_an_engine_on_the_wrong_device_is_an_illegal_address(self):
        executor = self.executor(misplaced={"stream0": 2})
        with pytest.raises(DeviceLostError, match="stream0 is an engine of device 2"):
            run(executor, self.spec, images(self.spec))

    def test_no_route_between_two_devices(self):
        executor = self.executor(no_route=frozenset({(2, 0)}))
        with pytest.raises(DeviceLostError, match="no route to device 0"):
            run(executor, self.spec, images(self.spec))

    def test_out_of_memory_frees_what_was_made(self):
        options = FakeOptions(faults=FaultPlan(memory_bytes={2: 1000}))
        plan = make_plan(self.placement, fixed_size(self.spec), backend="fake")
        loaded = FakeBackend(options, segment_kernel(self.spec)).load(self.spec, plan, {})
        with pytest.raises(
            OutOfMemoryError, match="device 2 memory: got no 12288 bytes, 184 of 1000"
        ):
            Executor(
                spec=self.spec,
                placement=self.placement,
                devices=loaded.devices,
                engines=loaded.engines,
                input_size=plan.input_size,
            )
        assert [device.used_bytes for device in loaded.devices.values()] == [0, 0, 0]

    def test_a_failed_launch_surfaces_in_the_callers_stream(self):
        executor, x = self.executor(fail_once=frozenset({"stream1"})), images(self.spec)
        stream = executor._devices[2].create_stream(0)
        logits = np.zeros((1, 4), np.float32)
        shape = (1, *x.shape[2:])
        executor.launch(x.ctypes.data, logits.ctypes.data, shape, stream.handle)
        with pytest.raises(ExecutionError, match="stream1"):
            stream.synchronize()

    def test_a_launch_on_a_lost_device(self):
        executor, x = self.executor(lose_device={2: 0}), images(self.spec)
        stream = executor._devices[2].create_stream(0)
        logits = np.zeros((1, 4), np.float32)
        shape = (1, *x.shape[2:])
        executor.launch(x.ctypes.data, logits.ctypes.data, shape, stream.handle)
        with pytest.raises(DeviceLostError):
            stream.synchronize()
        for _ in range(2):
            with pytest.raises(DeviceLostError):
                executor.launch(x.ctypes.data, logits.ctypes.data, shape, stream.handle)

    def test_a_launch_that_is_refused_leaves_the_callers_stream_what_went_wrong_before(self):
        """Found by chaos-runs: the first launch's logits were NaN and its stream said nothing."""
        executor, x = self.executor(lose_device={0: 0}), images(self.spec)
        stream = executor._devices[2].create_stream(0)
        logits = np.full((2, 1, 4), np.nan, np.float32)
        shape = (1, *x.shape[2:])
        executor.launch(x.ctypes.data, logits[0].ctypes.data, shape, stream.handle)
        for lane in executor._slots[0]._streams.values():
            with suppress(DeviceLostError):
                lane.synchronize()  # now device 0 is lost; the caller's stream has not noticed
        with pytest.raises(DeviceLostError):
            executor.launch(x.ctypes.data, logits[1].ctypes.data, shape, stream.handle)
        with pytest.raises(DeviceLostError, match="device 0"):
            stream.synchronize()


class TestMemory:
    spec = SPECS[3]

    def test_a_tensor_that_stays_is_written_where_it_is_read(self):
        seen: dict[str, set[int]] = {}
        plan = make_plan(streams(self.spec), fixed_size(self.spec), backend="fake")
        loaded = FakeBackend(None, segment_kernel(self.spec)).load(self.spec, plan, {})
        for engine in loaded.engines.values():
            engine.bind = spy(engine.bind, seen)
        executor = Executor(
            spec=self.spec,
            placement=plan.placement,
            devices=loaded.devices,
            engines=loaded.engines,
            input_size=plan.input_size,
        )
        assert {name: len(addresses) for name, addresses in seen.items()} == dict.fromkeys(seen, 1)
        assert not [step for step in executor.program.steps if step.op == "copy"]

    def test_calls_allocate_nothing(self):
        executor = fake_executor(self.spec, streams(self.spec, (0, 1, 2)), max_batch=3, slots=2)
        before = {device.used_bytes for device in executor._devices.values()}
        devices = executor._devices.values()
        for device in devices:
            device.allocate = device.create_stream = device.create_event = forbidden
        for batch in (1, 2, 3, 1):
            run(executor, self.spec, images(self.spec, batch))
        assert {device.used_bytes for device in devices} == before
        executor.close()
        assert [device.used_bytes for device in devices] == [0, 0, 0]


def run_often(executor, spec, x) -> None:
    for _ in range(4):
        run(executor, spec, x)


def spy(bind, seen):
    def bound(tensors, slot):
        for name, tensor in tensors.items():
            seen.setdefault(name, set()).add(tensor.buffer.address)
        return bind(tensors, slot)

    return bound


def forbidden(*args: object) -> None:
    raise AssertionError("this must not be called after open")


class TestLifetime:
    spec = SPECS[2]

    def test_close_is_idempotent_and_later_calls_are_refused(self):
        executor = fake_executor(self.spec, streams(self.spec))
        executor.close()
        executor.close()
        for _ in range(2):
            with pytest.raises(BackendError, match="it is closed"):
                run(executor, self.spec, images(self.spec))

    def test_close_waits_for_calls_in_flight(self):
        begun, go, ends = threading.Event(), threading.Event(), []
        executor = fake_executor(self.spec, streams(self.spec))
        engine = executor._slots[0]._engines["head"]
        compute = engine._kernel

        def slow(inputs):
            begun.set()
            go.wait()
            return compute(inputs)

        engine._kernel = slow
        call = threading.Thread(
            target=lambda: ends.append(run(executor, self.spec, images(self.spec)))
        )
        closer = threading.Thread(target=executor.close)
        call.start()
        begun.wait()
        closer.start()
        assert ends == []
        go.set()
        call.join()
        closer.join()
        np.testing.assert_array_equal(ends[0], reference(self.spec, images(self.spec)))

    def test_whoever_waits_for_a_slot_while_it_closes_is_refused(self):
        executor = fake_executor(self.spec, streams(self.spec))
        slot, refused = executor._free.get(), []

        def call() -> None:
            with pytest.raises(BackendError, match="it is closed"):
                run(executor, self.spec, images(self.spec))
            refused.append(True)

        threads = [threading.Thread(target=call) for _ in range(3)]
        threads.append(threading.Thread(target=executor.close))
        for thread in threads:
            thread.start()
        executor._free.put(slot)
        for thread in threads:
            thread.join()
        # Whoever got the slot before close did was still answered or refused; nobody hangs.
        assert len(refused) <= 3

    def test_describe_while_shapes_are_bound(self):
        size = InputSize(low=(16, 16), high=(64, 64))
        executor = fake_executor(self.spec, streams(self.spec), size=size)
        slot = executor._slots[0]

        class Growing(OrderedDict):
            def values(self):  # as another thread would, in the middle of the iteration
                for value in super().values():
                    slot.bind((1, 32, 16 * len(slot.bound)))
                    yield value

        slot.bind((1, 16, 16))
        slot.bound = Growing(slot.bound)
        assert executor.describe()["mode"] == "eager"

    def test_an_engine_that_cannot_be_bound_closes_the_others(self):
        size = InputSize(low=(16, 16), high=(64, 64))
        executor = fake_executor(self.spec, streams(self.spec), size=size)
        slot, closed = executor._slots[0], []
        bind = slot._bind_engine

        def fail_last(name, shape):
            if name == "head":
                raise BackendError("no")
            binding = bind(name, shape)
            return SimpleNamespace(close=lambda: (binding.close(), closed.append(name)))

        slot._bind_engine = fail_last
        with pytest.raises(BackendError, match="no"):
            slot.bind((1, 16, 16))
        assert sorted(closed) == sorted(set(slot._segments) - {"head"})
        assert not slot.bound

    @pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
    def test_every_lane_is_drained_whatever_one_raises(self, error):
        executor = fake_executor(self.spec, streams(self.spec, (0, 1)))
        slot, drained = executor._slots[0], []

        def synchronize(lane):
            drained.append(lane)
            raise error

        kept = dict(slot._streams)
        for lane in kept:
            slot._streams[lane] = SimpleNamespace(synchronize=partial(synchronize, lane))
        with pytest.raises(error):
            slot._drain()
        assert set(drained) == set(kept)
        slot._streams = kept
        executor.close()

    def test_a_size_that_the_network_cannot_have(self):
        with pytest.raises(SpecError, match="input size: got 20x20, expected multiples of 16"):
            fake_executor(
                self.spec, streams(self.spec), size=InputSize(low=(20, 20), high=(20, 20))
            )

    def test_describe_says_what_runs(self):
        executor = fake_executor(self.spec, streams(self.spec, (0, 1)), max_batch=2, slots=2)
        about = executor.describe()
        assert about["slots"] == 2
        assert about["mode"] == "eager"
        assert about["simulated"] is True
        assert about["main"] == {"device": 1, "lane": 0}
        assert about["steps"] == [str(step) for step in executor.program.steps]
        assert about["copies"][0] == {"tensor": "x0", "from": 1, "to": 0, "max_bytes": 2 * 128}
        assert about["buffer_bytes"] > 0

    def test_a_graph_is_captured_on_one_device_and_reported(self):
        one_device = fake_executor(self.spec, streams(self.spec), jittered(graphs=True))
        about = one_device.describe()
        assert (about["mode"], about["mode_reason"]) == ("graph", "")

    def test_on_several_devices_each_lane_has_graphs_of_its_own(self):
        two_devices = fake_executor(self.spec, streams(self.spec, (0, 1)), jittered(graphs=True))
        about = two_devices.describe()
        assert (about["mode"], about["mode_reason"]) == ("graphs", "")
        kinds = [
            getattr(call, "func", call) for call in two_devices._slots[0].bound.popitem()[1].staged
        ]
        launches = [kind for kind in kinds if getattr(kind, "__name__", "") == "launch"]
        runs = [step for step in two_devices.program.steps if step.op == "run"]
        assert 0 < len(launches) <= len(runs)
        assert not [kind for kind in kinds if getattr(kind, "__name__", "") == "enqueue"]

    def test_without_graphs_the_reason_is_reported(self):
        for devices in ((0,), (0, 1)):
            executor = fake_executor(self.spec, streams(self.spec, devices))
            about = executor.describe()
            assert about["mode"] == "eager"
            assert about["mode_reason"] == "the fake devices were told to have no graphs"

    def test_graphs_are_freed_before_the_bindings(self):
        executor = fake_executor(self.spec, streams(self.spec), jittered(graphs=True), max_batch=2)
        slot, order = executor._slots[0], []
        bind = slot._bind_engine

        def watched(name, shape):
            binding = bind(name, shape)
            return SimpleNamespace(**vars(binding), close=lambda: order.append(graphs[-1]._closed))

        slot._bind_engine = watched
        graphs = [slot.bind((2, *fixed_size(self.spec).low)).body]
        executor.close()
        assert order == [True] * len(slot._segments)

    def test_the_timeline_shows_what_overlaps(self):
        executor = fake_executor(self.spec, streams(self.spec, (0, 1)))
        run(executor, self.spec, images(self.spec))
        entries = executor.timeline()
        assert all(entry.simulated for entry in entries)
        runs = [entry.name for entry in entries if entry.op == "run"]
        assert sorted(runs) == ["head", "stem0", "stream0", "stream1"]
        by_name = {entry.name: entry for entry in entries}
        copy = by_name["device 1 -> 0"]
        assert copy.start_us < by_name["stream1"].end_us
        assert by_name["stream1"].start_us < copy.end_us
        assert by_name["head"].start_us >= by_name["stream0"].end_us
