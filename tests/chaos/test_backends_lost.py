"""A device is lost at every moment: right answers or ``DeviceLostError``, and nothing is left."""

from __future__ import annotations

import itertools
import threading
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from parnet_deploy import Runtime
from parnet_deploy.errors import BackendError, DeviceLostError
from parnet_deploy.runtime.fake.backend import FakeBackend
from parnet_deploy.runtime.fake.options import FakeOptions, FaultPlan
from tests.runtime.runtime_toys import PLACEMENTS, images, make_plan, reference, segment_kernel
from tests.runtime.test_executor import warm_up_and_capture
from tests.runtime.test_session import SIZE, SPEC

CALLS = 3
X = [images(SPEC, 1 + seed % 2, seed) for seed in range(CALLS)]
EXPECTED = [reference(SPEC, x) for x in X]


class Machine(FakeBackend):
    """Simulated devices that are lost after so many operations; keeps what it has loaded.

    ``warm``: graphs are captured behind a run for real, as a GPU does it. Each time that a plan is
    loaded the same devices are lost again: they are dead, after all.
    """

    def __init__(self, lose: dict[int, int], *, warm: bool = False, jitter_us: float = 0.0) -> None:
        options = FakeOptions(faults=FaultPlan(lose_device=lose), graphs=warm, jitter_us=jitter_us)
        super().__init__(options, segment_kernel(SPEC))
        self.loaded, self._warm = [], warm

    def load(self, *args, **more):
        found = super().load(*args, **more)
        self.loaded.append(found)
        for device in found.devices.values() if self._warm else ():
            device.capture = partial(warm_up_and_capture, device, device.capture)
        return found

    @property
    def left(self) -> list[int]:
        """Bytes that each device of each plan still holds."""
        return [device.used_bytes for one in self.loaded for device in one.devices.values()]


def operations(name: str, warm: bool) -> dict[int, int]:
    """How many each device begins until ``CALLS`` calls are answered, opening included."""
    machine = Machine({}, warm=warm)
    with Runtime.from_plan(SPEC, plan_of(name), {}, backend=machine) as rt:
        for x in X:
            rt(x)
    (one,) = machine.loaded
    simulator = next(iter(one.devices.values())).simulator
    return dict(simulator._begun)


def plan_of(name: str):
    return make_plan(PLACEMENTS[name](SPEC), SIZE, 4, backend="fake")


@pytest.mark.parametrize("warm", [False, True], ids=["eager", "captured"])
@pytest.mark.parametrize("name", PLACEMENTS)
def test_at_every_operation_of_every_device(name, warm):
    """Uploads, runs, copies, downloads, captures; while it opens, in a call and between two."""
    plan = plan_of(name)
    several = len(plan.placement.devices) > 1
    for device, count in operations(name, warm).items():
        for moment in range(count + 1):
            machine = Machine({device: moment}, warm=warm)
            rt = opened(plan, machine)
            if rt is None:  # while it captured; nothing runs yet that something could take over
                assert warm
                assert not any(machine.left)
                continue
            with rt:
                ends = [answer(rt, x, expected) for x, expected in zip(X, EXPECTED, strict=True)]
                losses = rt.describe()["lost"]
                assert "wrong" not in ends
                assert ("lost" in ends) is (not several and moment < count)
                assert len(losses) == (several and moment < count)
                assert all(device not in loss["now"]["devices"] for loss in losses)
                assert sum(machine.left[: -len(machine.loaded[-1].devices)]) == 0  # the first
            assert not any(machine.left)


@pytest.mark.parametrize("name", ["streams on two devices", "streams on three devices"])
def test_the_successor_is_lost_too(name):
    """Each device in turn, at any two moments, down to the last one and none."""
    plan, begun = plan_of(name), operations(name, False)
    for order in itertools.permutations(begun):
        for first, second in itertools.product((0, 2, 5, 9), repeat=2):
            lose = {order[0]: first, order[1]: first + second + 1}
            machine = Machine(lose)
            with Runtime.from_plan(SPEC, plan, {}, backend=machine, on_device_lost="replan") as rt:
                ends = [answer(rt, x, expected) for x, expected in zip(X, EXPECTED, strict=True)]
                losses = rt.describe()["lost"]
                assert "wrong" not in ends
                assert len(losses) <= len(order) - 1
                assert ("lost" in ends) <= (len(losses) == len(order) - 1)
            assert not any(machine.left)


def opened(plan, machine: Machine) -> Runtime | None:
    """None if a device was lost meanwhile."""
    try:
        return Runtime.from_plan(SPEC, plan, {}, backend=machine, on_device_lost="replan")
    except DeviceLostError:
        return None


def answer(rt: Runtime, x, expected) -> str:
    try:
        return "right" if np.array_equal(rt(x), expected) else "wrong"
    except DeviceLostError:
        return "lost"


@pytest.mark.parametrize("name", ["streams on two devices", "streams on three devices"])
@pytest.mark.parametrize("moment", [0, 3, 8, 20])
def test_while_many_threads_call_there_is_one_successor(name, moment):
    plan = replace(plan_of(name), max_batch=2)
    for device in plan.placement.devices:
        machine, ends = Machine({device: moment}, jitter_us=5.0), []
        with Runtime.from_plan(
            SPEC, plan, {}, backend=machine, slots=3, on_device_lost="replan"
        ) as rt:

            def work(rt=rt, ends=ends) -> None:
                for x, expected in zip(X, EXPECTED, strict=True):
                    ends.append((answer(rt, x, expected), id(rt._now)))

            threads = [threading.Thread(target=work) for _ in range(6)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert {end for end, _ in ends} == {"right"}
            assert len(ends) == 6 * CALLS
            assert len({now for _, now in ends}) <= 2
            assert len(rt.describe()["lost"]) == 1
            assert len(machine.loaded) == 2
        assert not any(machine.left)


@pytest.mark.parametrize("name", PLACEMENTS)
def test_while_it_closes(name):
    """Work of a caller's stream is still enqueued, and its device is gone."""
    plan = plan_of(name)
    for device in plan.placement.devices:
        machine = Machine({})
        rt = Runtime.from_plan(SPEC, plan, {}, backend=machine, on_device_lost="replan")
        executor = rt._now.executor
        stream = executor.home.create_stream(0)
        x, logits = X[0], np.full((1, SPEC.num_classes), 7, np.float32)
        rt.run_into(x.ctypes.data, logits.ctypes.data, stream=stream.handle)
        executor.home.simulator._lose(device, "it was lost (injected)")
        rt.close()
        rt.close()
        assert len(machine.loaded) == 1
        assert not any(machine.left)
        with pytest.raises(BackendError, match="it is closed"):
            rt(x)


@pytest.mark.parametrize("name", PLACEMENTS)
def test_by_default_it_is_refused_for_good_and_all_is_freed(name):
    plan = plan_of(name)
    for device in plan.placement.devices:
        machine = Machine({device: 1})
        with Runtime.from_plan(SPEC, plan, {}, backend=machine) as rt:
            ends = [answer(rt, x, expected) for x, expected in zip(X, EXPECTED, strict=True)]
            assert ends == ["lost"] * CALLS
            assert rt.describe()["lost"] == []
        assert len(machine.loaded) == 1
        assert not any(machine.left)
