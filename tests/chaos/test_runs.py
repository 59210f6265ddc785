"""The harness of ``make chaos-runs`` in its short form, and the proof that it detects."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from parnet_deploy.runtime import executor as executors
from parnet_deploy.runtime.device import Capture
from parnet_deploy.runtime.executor import Executor
from parnet_deploy.runtime.fake.device import FakeDevice
from parnet_deploy.runtime.program import compile_program
from parnet_deploy.runtime.slot import Slot
from tests.chaos.runs import run_chunk, run_world
from tests.chaos.tally import Tally
from tests.chaos.worlds import KINDS, make_world
from tests.runtime.test_program import waits, without_step

RUNS = 20_000
ENOUGH = 60
"""Chunks in which any of the mistakes below must have shown."""


def run_until(done: Callable[[Tally], bool], seed: int, chunks: int) -> Tally:
    tally = Tally()
    for chunk in range(chunks):
        tally.add(run_chunk(seed, chunk))
        if done(tally):
            break
    return tally


@pytest.mark.slow
def test_no_answer_is_wrong():
    tally = run_until(lambda tally: tally.total >= RUNS, seed=7, chunks=1000)
    assert tally.holds, tally.details
    assert tally.total >= RUNS
    assert set(tally.worlds) == set(KINDS)
    assert set(tally.runs) == {"call", "run_into", "submit", "launch", "enqueue"}
    assert {"ExecutionError", "DeviceLostError", "BackendError"} <= set(tally.errors)
    assert tally.cancelled


def test_a_world_is_the_same_every_time():
    assert make_world(5) == make_world(5)
    assert make_world(5) != make_world(6)
    first, second = run_world(make_world(5)), run_world(make_world(5))
    assert first.runs == second.runs


def forget_a_wait(monkeypatch) -> None:
    rng = random.Random(0)

    def forgetful(*arguments):
        program = compile_program(*arguments)
        found = waits(program)
        return without_step(program, rng.choice(found)) if found else program

    monkeypatch.setattr(executors, "compile_program", forgetful)
    # A capture would refuse many of these programs when the runtime is opened.
    monkeypatch.setattr(FakeDevice, "capture", lambda *_: Capture(None, "not here"))


def forget_the_call_before(monkeypatch) -> None:
    ready = Slot._ready

    def forgetful(slot, shape):
        bound = ready(slot, shape)
        slot._outside = False
        return bound

    monkeypatch.setattr(Slot, "_ready", forgetful)


def hand_a_slot_out_twice(monkeypatch) -> None:
    call = Executor._call

    def generous(executor, work, shape, arguments):
        executor._free.put(executor._slots[0])
        try:
            call(executor, work, shape, arguments)
        finally:
            executor._free.get()

    monkeypatch.setattr(Executor, "_call", generous)


def swallow_errors(monkeypatch) -> None:
    finish = Slot._finish

    def careless(slot, calls, logits, bound):
        try:
            finish(slot, calls, logits, bound)
        except Exception:
            return

    monkeypatch.setattr(Slot, "_finish", careless)


@pytest.mark.slow
@pytest.mark.parametrize(
    "break_it", [forget_a_wait, forget_the_call_before, hand_a_slot_out_twice, swallow_errors]
)
def test_a_mistake_is_noticed(monkeypatch, break_it):
    break_it(monkeypatch)
    tally = run_until(lambda tally: tally.wrong > 0, seed=7, chunks=ENOUGH)
    assert tally.wrong, "no answer was wrong"
