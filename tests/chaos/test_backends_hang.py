"""A plan whose engines hang is lost: what takes over, and when nothing does."""

from __future__ import annotations

import threading

import pytest

from parnet_deploy import Runtime
from parnet_deploy.errors import DeviceLostError, TimedOutError
from parnet_deploy.runtime import opened as module
from parnet_deploy.runtime.backend import load_backend
from parnet_deploy.runtime.fake import backend as fake
from tests.chaos.faulty import HANG_S, Faults, FaultyBackend
from tests.runtime.test_session import (
    EXPECTED,
    FAKE,
    ONE,
    STREAMS,
    X,
    canary_of,
    close_to,
    publish,
)
from tests.runtime.test_watchdog import SOON_S, limit

NEW, OLD = "2026-01-05T00:00:00+00:00", "2026-01-01T00:00:00+00:00"


@pytest.fixture
def faults(monkeypatch):
    """Faults of the plan "streams" on the CPU; other plans have engines of other names."""
    found = Faults()

    def load(name: str):
        found.loaded.append(name)
        return FaultyBackend(found) if name == "onnxruntime" else load_backend(name)

    monkeypatch.setattr(module, "load_backend", load)
    yield found
    found.let()


def opened(path, plans, key: str) -> Runtime:
    publish(path, plans, canary=canary_of(X, EXPECTED))
    return Runtime.open(path, plan=key, timeout_s=HANG_S, on_device_lost="replan", slots=2)


def test_another_plan_on_the_cpu_takes_over(tmp_path, faults):
    plans = {"streams": (STREAMS, None, NEW), "one": (ONE, None, OLD)}
    with opened(tmp_path / "toy", plans, "streams") as rt:
        assert close_to(rt(X), EXPECTED)
        limit(rt, SOON_S)
        faults.hang("stream1")
        assert close_to(rt(X), EXPECTED)
        about = rt.describe()
        assert about["plan"] == "one"
        assert faults.loaded == ["onnxruntime"] * 2  # what hangs was not tried again
        (loss,) = about["lost"]
        assert "got no answer from its engines" in loss["error"]
        assert rt.stuck == 0
        assert close_to(rt(X), EXPECTED)


def test_all_callers_agree_on_what_takes_over(tmp_path, faults):
    plans = {"streams": (STREAMS, None, NEW), "one": (ONE, None, OLD)}
    with opened(tmp_path / "toy", plans, "streams") as rt:
        found: list[tuple[bool, object]] = []

        def ask() -> None:
            right = close_to(rt(X), EXPECTED)
            found.append((right, rt.describe()["plan"]))

        limit(rt, SOON_S)
        faults.hang("stream0")
        threads = [threading.Thread(target=ask) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(HANG_S)
        assert found == [(True, "one")] * 6
        assert len(rt.describe()["lost"]) == 1


def test_a_hung_device_is_not_used_again(tmp_path, faults, monkeypatch):
    """Simulated devices hang as a GPU does: all that the plan used are out."""
    gate = threading.Event()
    slow = fake.OnnxKernel.__call__

    def hang(self, inputs):
        if hanging:
            assert gate.wait(HANG_S)
        return slow(self, inputs)

    hanging: list[bool] = []
    monkeypatch.setattr(fake.OnnxKernel, "__call__", hang)
    plans = {"three": (FAKE, None, NEW), "cpu": (ONE, None, OLD)}
    with opened(tmp_path / "toy", plans, "three") as rt:
        assert close_to(rt(X), EXPECTED)
        limit(rt, SOON_S)
        hanging.append(True)
        assert close_to(rt(X), EXPECTED)
        about = rt.describe()
        assert (about["plan"], about["backend"]) == ("cpu", "onnxruntime")
        assert faults.loaded == ["fake", "onnxruntime"]
        hanging.clear()
        gate.set()


def test_when_nothing_is_left_it_says_so(tmp_path, faults):
    with opened(tmp_path / "toy", {"streams": (STREAMS, None, NEW)}, "streams") as rt:
        limit(rt, SOON_S)
        faults.hang("stream1")
        for _ in range(2):
            with pytest.raises(DeviceLostError, match=r"its engines.*Nothing else can answer"):
                rt(X)


def test_the_default_is_to_refuse(tmp_path, faults):
    publish(tmp_path / "toy", {"streams": (STREAMS, None, NEW), "one": (ONE, None, OLD)})
    with Runtime.open(tmp_path / "toy", plan="streams", timeout_s=HANG_S) as rt:
        limit(rt, SOON_S)
        faults.hang("stream1")
        for _ in range(2):
            with pytest.raises(TimedOutError):
                rt(X)
        assert rt.describe()["lost"] == []


def test_a_plan_that_hangs_at_open_does_not_keep_the_caller(tmp_path, faults):
    publish(tmp_path / "toy", {"streams": (STREAMS, None, NEW)}, canary=canary_of(X, EXPECTED))
    faults.hang("stream1")
    with pytest.raises(TimedOutError, match="plan streams: got no answer"):
        Runtime.open(tmp_path / "toy", timeout_s=SOON_S)
    assert not faults.closed.is_set()
    faults.let()
    assert faults.closed.wait(HANG_S)  # and then it is freed
