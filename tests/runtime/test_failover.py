"""A device is lost while a runtime answers: what takes over, and when nothing does."""

from __future__ import annotations

import logging
import threading
from dataclasses import replace

import numpy as np
import pytest

from parnet_deploy import Runtime
from parnet_deploy.errors import (
    BackendError,
    DeviceLostError,
    ExecutionError,
    SpecError,
)
from parnet_deploy.placement import one, streams
from parnet_deploy.runtime.arrays.inputs import address_of
from parnet_deploy.runtime.fake import backend as fake
from parnet_deploy.runtime.fake.backend import FakeBackend
from parnet_deploy.runtime.fake.options import FakeOptions, FaultPlan
from tests.runtime.runtime_toys import images, make_plan, segment_kernel
from tests.runtime.test_session import (
    EXPECTED,
    FAKE,
    ONE,
    SIZE,
    SPEC,
    X,
    canary_of,
    close_to,
    publish,
)

LOSE_2 = FaultPlan(lose_device={2: 12})


def losing(faults: FaultPlan = LOSE_2, jitter_us: float = 0.0) -> FakeBackend:
    return FakeBackend(FakeOptions(faults=faults, jitter_us=jitter_us), segment_kernel(SPEC))


def until_lost(rt: Runtime, calls: int = 40) -> None:
    for _ in range(calls):
        assert close_to(rt(X), EXPECTED)


@pytest.fixture
def deployment(tmp_path, monkeypatch):
    """Plans for three fake devices and for the CPU; fake device 2 dies after some operations."""
    path = tmp_path / "toy"
    plans = {
        "three": (FAKE, None, "2026-01-05T00:00:00+00:00"),
        "cpu": (ONE, 1.0, "2026-01-03T00:00:00+00:00"),
    }
    publish(path, plans, canary=canary_of(X, EXPECTED))
    monkeypatch.setattr(fake, "FakeOptions", lambda: FakeOptions(faults=LOSE_2))
    return path


def test_the_default_is_to_refuse(deployment):
    with Runtime.open(deployment, plan="three") as rt:
        with pytest.raises(DeviceLostError, match="device 2"):
            until_lost(rt)
        with pytest.raises(DeviceLostError, match="device 2"):
            rt(X)
        assert rt.describe()["lost"] == []


def test_the_same_engines_go_on_with_the_devices_that_are_left(deployment, caplog):
    with (
        caplog.at_level(logging.WARNING, "parnet_deploy"),
        Runtime.open(deployment, plan="three", on_device_lost="replan") as rt,
    ):
        until_lost(rt)
        about = rt.describe()
        assert about["plan"] == "three"
        assert {segment["device"] for segment in about["placement"]["segments"]} == {0, 1}
        assert about["canary"]["passed"] is True
        (loss,) = about["lost"]
        assert "device 2" in loss["error"]
        assert loss["now"] == {"plan": "three", "backend": "fake", "devices": [0, 1]}
        assert close_to(rt.submit(X).result(), EXPECTED)
    assert "Now running on fake, devices [0, 1]" in caplog.text


def test_without_devices_the_cpu_takes_over(tmp_path, monkeypatch):
    path = tmp_path / "toy"
    single = make_plan(one(SPEC), SIZE, 4, backend="fake")
    publish(
        path,
        {"gpu": (single, None, "2026-01-05T00:00:00+00:00"), "cpu": (ONE, 1.0, "")},
        canary=canary_of(X, EXPECTED),
    )
    faults = FaultPlan(lose_device={0: 12})
    monkeypatch.setattr(fake, "FakeOptions", lambda: FakeOptions(faults=faults))
    with Runtime.open(path, plan="gpu", on_device_lost="replan") as rt:
        until_lost(rt)
        about = rt.describe()
        assert (about["plan"], about["backend"]) == ("cpu", "onnxruntime")
        assert about["lost"][0]["now"]["backend"] == "onnxruntime"


def test_a_second_loss_is_survived_too(deployment, monkeypatch):
    faults = FaultPlan(lose_device={2: 12, 1: 30, 0: 60})
    monkeypatch.setattr(fake, "FakeOptions", lambda: FakeOptions(faults=faults))
    with Runtime.open(deployment, plan="three", on_device_lost="replan") as rt:
        until_lost(rt, 80)
        about = rt.describe()
        assert about["backend"] == "onnxruntime"
        assert [loss["now"]["devices"] for loss in about["lost"]] == [[0, 1], [1], [0]]


def test_a_successor_that_computes_something_else_does_not_take_over(deployment, monkeypatch):
    made = iter([FakeOptions(faults=LOSE_2), FakeOptions(faults=FaultPlan(write_wrong={"head"}))])
    monkeypatch.setattr(fake, "FakeOptions", lambda: next(made))
    with Runtime.open(deployment, plan="three", on_device_lost="replan") as rt:
        until_lost(rt)
        assert rt.describe()["backend"] == "onnxruntime"


def test_when_nothing_is_left_the_error_says_what_was_tried(tmp_path):
    backend = losing(FaultPlan(lose_device={0: 12}))
    plan = make_plan(one(SPEC), SIZE, 4, backend="fake")
    with Runtime.from_plan(SPEC, plan, {}, backend=backend, on_device_lost="replan") as rt:
        for _ in range(2):
            with pytest.raises(DeviceLostError, match=r"device 0.*Nothing else can answer"):
                until_lost(rt)


def test_engines_outside_a_deployment_move_too():
    with Runtime.from_plan(SPEC, FAKE, {}, backend=losing(), on_device_lost="replan") as rt:
        until_lost(rt)
        assert rt.describe()["lost"][0]["now"]["devices"] == [0, 1]


def test_a_failed_run_is_no_reason_to_move():
    backend = losing(FaultPlan(fail_once=frozenset({"head"})))
    with Runtime.from_plan(SPEC, FAKE, {}, backend=backend, on_device_lost="replan") as rt:
        with pytest.raises(ExecutionError, match="segment head"):
            rt(X)
        assert close_to(rt(X), EXPECTED)
        assert rt.describe()["lost"] == []


def test_run_into_goes_on_and_a_callers_stream_does_not():
    x, logits = images(SPEC, 1), np.empty((1, SPEC.num_classes), np.float32)
    with Runtime.from_plan(SPEC, FAKE, {}, backend=losing(), on_device_lost="replan") as rt:
        for _ in range(40):
            logits[:] = np.nan
            rt.run_into(address_of(x), address_of(logits))
            assert np.isfinite(logits).all()
        assert rt.describe()["lost"]
    with Runtime.from_plan(SPEC, FAKE, {}, backend=losing(), on_device_lost="replan") as rt:
        stream = rt._now.executor._devices[2].create_stream(0)

        def launch(calls: int) -> None:
            for _ in range(calls):
                rt.run_into(address_of(x), address_of(logits), stream=stream.handle)
                stream.synchronize()

        with pytest.raises(DeviceLostError):
            launch(40)
        assert rt.describe()["lost"] == []


def test_all_threads_get_the_same_successor():
    backend, errors, moved = losing(jitter_us=5.0), [], set()
    plan = replace(FAKE, max_batch=2)
    with Runtime.from_plan(SPEC, plan, {}, backend=backend, slots=4, on_device_lost="replan") as rt:

        def work() -> None:
            try:
                until_lost(rt, 10)
                moved.add(id(rt._now))
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
        assert len(moved) == len(rt.describe()["lost"]) == 1


def test_after_close_nothing_takes_over():
    rt = Runtime.from_plan(SPEC, FAKE, {}, backend=losing(), on_device_lost="replan")
    opened = rt._now
    rt.close()
    lost = DeviceLostError("device 2: gone.", 2)
    assert rt._standby.successor(opened, lost) is None
    with pytest.raises(BackendError, match="it is closed"):
        rt(X)


def test_a_policy_that_does_not_exist():
    with pytest.raises(SpecError, match="on_device_lost: got 'retry', expected one of refuse, rep"):
        Runtime.from_plan(SPEC, FAKE, {}, backend=losing(), on_device_lost="retry")


def test_remapped_streams_keep_lanes_of_their_own():
    from parnet_deploy.placement import check_placement, remap

    placement = streams(SPEC, (0, 1, 2))
    moved = remap(placement, {2: 0, 1: 0})
    check_placement(moved, SPEC)
    assert moved.devices == (0,)
    before = {(s.device, s.lane) for s in placement.segments}
    after = {(s.device, s.lane) for s in moved.segments}
    assert len(after) == len(before)
    assert remap(placement, {}) == placement
