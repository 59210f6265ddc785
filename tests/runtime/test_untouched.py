"""After an error the caller's memory is as it was: the image, the logits, and what is around them.

There is no error for NaN: it goes in and comes out. Where a canary fails no runtime opens.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parnet_deploy import Runtime
from parnet_deploy.errors import (
    BackendError,
    DeviceLostError,
    DeviceUnavailableError,
    ExecutionError,
    InputError,
    OutOfMemoryError,
)
from parnet_deploy.input_size import InputSize
from parnet_deploy.placement import Placement, one, streams
from parnet_deploy.runtime.fake.backend import FakeBackend
from parnet_deploy.runtime.fake.options import FakeOptions, FaultPlan
from tests.runtime.host_toys import Engine, host_runtime
from tests.runtime.memory import CallersMemory
from tests.runtime.runtime_toys import (
    SPECS,
    fixed_size,
    images,
    make_plan,
    random_placement,
    reference,
    segment_kernel,
)

SPEC = SPECS[3]
X = images(SPEC, 2)
SEGMENTS = [segment.name for segment in streams(SPEC).segments]


@pytest.fixture
def memory() -> CallersMemory:
    return CallersMemory(X, SPEC.num_classes)


def fake_runtime(placement: Placement, *, graphs: bool = False, **faults) -> Runtime:
    plan = make_plan(placement, fixed_size(SPEC), 2, backend="fake")
    options = FakeOptions(graphs=graphs, faults=FaultPlan(**faults))
    return Runtime.from_plan(SPEC, plan, {}, backend=FakeBackend(options, segment_kernel(SPEC)))


def call(rt: Runtime, memory: CallersMemory, **changes: object) -> None:
    """``run_into``, and if it is refused for other reasons than its arguments, the others too."""
    image, logits = memory.addresses
    rt.run_into(**{"in_ptr": image, "out_ptr": logits, "n": len(memory.image), **changes})


def check_refused(
    rt: Runtime, memory: CallersMemory, error: type, message: str | None = None
) -> None:
    """Every way to call raises this, and touches nothing."""
    ways: tuple[Callable[[], object], ...] = (
        lambda: call(rt, memory),
        lambda: rt(memory.image),
        lambda: rt.submit(memory.image).result(),
    )
    for way in ways:
        with pytest.raises(error, match=message):
            way()
        memory.check_untouched()


def check_answers(rt: Runtime, memory: CallersMemory) -> None:
    """The next call is right, and writes the logits and nothing else."""
    call(rt, memory)
    memory.check_answered(reference(SPEC, memory.image))


class TestArguments:
    BAD = (
        {"n": 0},
        {"n": -1},
        {"n": 3},
        {"n": 2**40},
        {"n": 1.0},
        {"size": (16, 16)},
        {"size": (64, 32)},
        {"size": (32, -32)},
        {"size": 32},
        {"in_ptr": 0},
        {"out_ptr": 0},
        {"in_ptr": 1 << 64},
        {"out_ptr": -4},
        {"out_ptr": None},
    )

    @pytest.mark.parametrize("bad", BAD, ids=str)
    @pytest.mark.parametrize("placement", [one, streams])
    @pytest.mark.parametrize(
        "open_it", [host_runtime, lambda _, placement: fake_runtime(placement)]
    )
    def test_bad_arguments(self, memory, bad, placement, open_it):
        with open_it(SPEC, placement(SPEC)) as rt:
            with pytest.raises(InputError):
                call(rt, memory, **bad)
            memory.check_untouched()
            check_answers(rt, memory)

    @pytest.mark.parametrize("name", ["in_ptr", "out_ptr"])
    @pytest.mark.parametrize("off", [1, 2, 3])
    def test_an_address_that_is_not_aligned(self, memory, name, off):
        image, logits = memory.addresses
        with host_runtime(SPEC, one(SPEC)) as rt:
            with pytest.raises(InputError, match=f"{name}: .*a multiple of 4"):
                call(rt, memory, **{name: {"in_ptr": image, "out_ptr": logits}[name] + off})
            memory.check_untouched()

    def test_a_stream_where_there_is_none(self, memory):
        with host_runtime(SPEC, one(SPEC)) as rt:
            with pytest.raises(DeviceUnavailableError):
                call(rt, memory, stream=8)
            memory.check_untouched()
            check_answers(rt, memory)

    def test_no_size_where_there_are_several(self, memory):
        plan = make_plan(one(SPEC), InputSize(low=(32, 32), high=(64, 64)), 2, backend="fake")
        backend = FakeBackend(None, segment_kernel(SPEC))
        with Runtime.from_plan(SPEC, plan, {}, backend=backend) as rt:
            for size in (None, (48, 48), (96, 32)):
                with pytest.raises(InputError, match="size"):
                    call(rt, memory, size=size)
                memory.check_untouched()


@pytest.mark.parametrize("placement", [one, streams])
def test_a_closed_runtime(memory, placement):
    with host_runtime(SPEC, placement(SPEC)) as rt:
        pass
    check_refused(rt, memory, BackendError, "it is closed")


@pytest.mark.parametrize("error", [ExecutionError, OutOfMemoryError, ValueError])
@pytest.mark.parametrize("failing", SEGMENTS)
def test_an_engine_that_fails_on_the_host(memory, failing, error):
    broken = [True]

    def before(segment: str) -> None:
        if segment == failing and broken[0]:
            raise error("broken")

    with host_runtime(SPEC, streams(SPEC), before) as rt:
        check_refused(rt, memory, error, "broken")
        broken[0] = False
        check_answers(rt, memory)


@pytest.mark.parametrize("inline", ["stem0", "stream2", "head"])
def test_ctrl_c_in_the_middle(memory, inline):
    pressed = [True]

    def before(segment: str) -> None:
        if segment == inline and pressed[0]:
            raise KeyboardInterrupt

    with host_runtime(SPEC, streams(SPEC), before) as rt:
        with pytest.raises(KeyboardInterrupt):
            call(rt, memory)
        memory.check_untouched()
        pressed[0] = False
        check_answers(rt, memory)


def test_a_batch_that_cannot_be_prepared(memory, monkeypatch):
    bind = Engine.bind

    def refuse(self, tensors, slot):
        if next(iter(tensors.values())).shape[0] == 2:
            raise OutOfMemoryError("no room for two")
        return bind(self, tensors, slot)

    monkeypatch.setattr(Engine, "bind", refuse)
    with host_runtime(SPEC, streams(SPEC)) as rt:
        check_refused(rt, memory, OutOfMemoryError, "no room for two")
        monkeypatch.setattr(Engine, "bind", bind)
        check_answers(rt, memory)


@pytest.mark.parametrize("graphs", [False, True], ids=["eager", "graph"])
class TestDevices:
    @pytest.mark.parametrize("devices", [(0,), (0, 1, 2)], ids=["one device", "three devices"])
    @pytest.mark.parametrize("failing", SEGMENTS)
    def test_an_engine_that_fails_once(self, memory, failing, devices, graphs):
        placement = streams(SPEC, devices)
        with fake_runtime(placement, graphs=graphs, fail_once=frozenset({failing})) as rt:
            with pytest.raises(ExecutionError, match=failing):
                call(rt, memory)
            memory.check_untouched()
            check_answers(rt, memory)

    @pytest.mark.parametrize("device", [0, 1, 2])
    @pytest.mark.parametrize("operations", range(0, 8))
    def test_a_device_that_is_lost(self, memory, device, operations, graphs):
        lost = {device: operations}
        with fake_runtime(streams(SPEC, (0, 1, 2)), graphs=graphs, lose_device=lost) as rt:
            with suppress(DeviceLostError):
                for _ in range(10):
                    check_answers(rt, memory)
            memory.check_untouched()
            check_refused(rt, memory, DeviceLostError)

    @pytest.mark.parametrize(
        "faults", [{"misplaced": {"stream0": 2}}, {"no_route": frozenset({(2, 0)})}], ids=str
    )
    def test_memory_that_cannot_be_reached(self, memory, faults, graphs):
        with fake_runtime(streams(SPEC, (0, 1, 2)), graphs=graphs, **faults) as rt:
            check_refused(rt, memory, DeviceLostError)

    def test_a_stream_that_is_none(self, memory, graphs):
        with fake_runtime(one(SPEC), graphs=graphs) as rt:
            for stream in (12345, -1, 1 << 64, "stream"):
                with pytest.raises((DeviceUnavailableError, InputError)):
                    call(rt, memory, stream=stream)
                memory.check_untouched()
            check_answers(rt, memory)


def test_nothing_is_left_to_take_over(memory):
    plan = make_plan(one(SPEC), fixed_size(SPEC), 2, backend="fake")
    options = FakeOptions(faults=FaultPlan(lose_device={0: 1}))
    backend = FakeBackend(options, segment_kernel(SPEC))
    with Runtime.from_plan(SPEC, plan, {}, backend=backend, on_device_lost="replan") as rt:
        check_refused(rt, memory, DeviceLostError)


@settings(max_examples=100, deadline=None)
@given(
    count=st.sampled_from(sorted(SPECS)),
    seed=st.integers(0, 2**32),
    devices=st.integers(1, 3),
    batch=st.integers(1, 3),
    graphs=st.booleans(),
)
def test_any_placement_any_segment(count, seed, devices, batch, graphs):
    """Fails once in one segment or loses a device somewhere; before and after it answers."""
    spec, rng = SPECS[count], random.Random(seed)
    placement = random_placement(spec, rng, devices, 3, again=0.2)
    failing = rng.choice(placement.segments)
    lost = {failing.device: rng.randrange(40)} if rng.random() < 0.5 else {}
    faults = FaultPlan(fail_once=frozenset({failing.name}), lose_device=lost)
    options = FakeOptions(seed=seed, jitter_us=50.0, graphs=graphs, faults=faults)
    plan = make_plan(placement, fixed_size(spec), 3, backend="fake")
    memory = CallersMemory(images(spec, batch, seed % 1000), spec.num_classes)
    expected = reference(spec, memory.image)
    failures = 0
    with Runtime.from_plan(
        spec, plan, {}, backend=FakeBackend(options, segment_kernel(spec))
    ) as rt:
        for _ in range(4):
            try:
                call(rt, memory)
            except BackendError:
                failures += 1
                memory.check_untouched()
            else:
                memory.check_answered(expected)
    assert failures >= 1


def test_the_check_sees_a_single_byte(memory):
    memory.check_untouched()
    for whole in (memory._image, memory._logits):
        for index in (0, len(whole) // 2, -1):
            whole.view(np.uint8)[index] ^= 1
            with pytest.raises(AssertionError):
                memory.check_untouched()
            whole.view(np.uint8)[index] ^= 1
