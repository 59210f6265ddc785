"""Copies of a call on simulated GPUs, counted: one in, one up, one down, one out; and no more."""

from __future__ import annotations

import ctypes
from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest

from parnet_deploy import Runtime
from parnet_deploy.placement import one, streams
from parnet_deploy.runtime import slot
from parnet_deploy.runtime.fake.backend import FakeBackend
from parnet_deploy.runtime.fake.device import FakeDevice
from parnet_deploy.runtime.fake.options import FakeOptions
from parnet_deploy.runtime.host import HostBuffer
from tests.runtime.runtime_toys import (
    SPECS,
    fixed_size,
    images,
    make_plan,
    reference,
    segment_kernel,
)

SPEC = SPECS[3]
BOTH_WAYS = {"host -> device 0": 1, "device 0 -> host": 1}


class Counts:
    """What is done from now on. ``moves`` are copies on the host: (target, source, bytes)."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.made: Counter[str] = Counter()
        self.moves: list[tuple[int, int, int]] = []
        for name in ("allocate", "allocate_host", "create_stream", "create_event"):
            monkeypatch.setattr(FakeDevice, name, self._counted(name, getattr(FakeDevice, name)))
        monkeypatch.setattr(HostBuffer, "__init__", self._counted("host", HostBuffer.__init__))
        monkeypatch.setattr(slot, "ctypes", SimpleNamespace(memmove=self._move))

    def clear(self) -> None:
        self.made.clear()
        self.moves.clear()

    def _counted(self, name, real):
        def call(*arguments, **more):
            self.made[name] += 1
            return real(*arguments, **more)

        return call

    def _move(self, target: int, source: int, nbytes: int) -> None:
        self.moves.append((target, source, nbytes))
        ctypes.memmove(target, source, nbytes)


def copies(rt: Runtime, call: Callable[[], object]) -> Counter[str]:
    """What the simulated devices copy in a call."""
    before = len(rt.timeline())
    call()
    return Counter(entry.name for entry in rt.timeline()[before:] if entry.op == "copy")


@pytest.fixture
def counts(monkeypatch):
    return Counts(monkeypatch)


@pytest.fixture(params=[False, True], ids=["eager", "graph"])
def rt(request, counts):
    plan = make_plan(one(SPEC), fixed_size(SPEC), 2, backend="fake")
    backend = FakeBackend(FakeOptions(graphs=request.param), segment_kernel(SPEC))
    with Runtime.from_plan(SPEC, plan, {}, backend=backend) as runtime:
        runtime(images(SPEC, 2))
        runtime.submit(images(SPEC, 2)).result()
        counts.clear()
        yield runtime


def test_one_copy_on_the_host_and_one_by_the_device_each_way(rt, counts):
    x, out = images(SPEC, 2), np.full((2, 4), np.nan, np.float32)
    assert copies(rt, lambda: rt.run_into(x.ctypes.data, out.ctypes.data, n=2)) == BOTH_WAYS
    np.testing.assert_array_equal(out, reference(SPEC, x))
    (_, source, image_bytes), (target, _, logits_bytes) = counts.moves
    assert (source, image_bytes) == (x.ctypes.data, x.nbytes)
    assert (target, logits_bytes) == (out.ctypes.data, out.nbytes)
    assert not counts.made


@pytest.mark.parametrize("call", ["call", "submit"])
def test_a_call_does_the_same_into_a_fresh_array(rt, counts, call):
    x, answers = images(SPEC, 2), []
    run = rt if call == "call" else lambda x: rt.submit(x).result()
    assert copies(rt, lambda: answers.append(run(x))) == BOTH_WAYS
    (_, source, _), (target, _, _) = counts.moves
    assert (source, target) == (x.ctypes.data, answers[0].ctypes.data)
    assert not counts.made


def test_in_a_stream_of_the_caller_nothing_is_copied_on_the_host(rt, counts):
    stream = rt._now.executor.home.create_stream(9)
    x, out = images(SPEC, 2), np.full((2, 4), np.nan, np.float32)

    def call() -> None:
        rt.run_into(x.ctypes.data, out.ctypes.data, n=2, stream=stream.handle)
        stream.synchronize()

    call()  # makes the event of this stream's device
    counts.clear()
    assert copies(rt, call) == BOTH_WAYS
    np.testing.assert_array_equal(out, reference(SPEC, x))
    assert counts.moves == []
    assert not counts.made


def test_several_devices_copy_what_the_program_says(counts):
    plan = make_plan(streams(SPEC, (0, 1, 2)), fixed_size(SPEC), backend="fake")
    backend = FakeBackend(FakeOptions(), segment_kernel(SPEC))
    with Runtime.from_plan(SPEC, plan, {}, backend=backend) as rt:
        x = images(SPEC)
        rt(x)
        counts.clear()
        made = copies(rt, lambda: rt(x))
        steps = Counter(step.op for step in rt.program.steps)
    assert made.total() == steps["upload"] + steps["copy"] + steps["download"]
    assert sum(made[name] for name in made if name.startswith("host")) == steps["upload"]
    assert len(counts.moves) == 2
    assert not counts.made
