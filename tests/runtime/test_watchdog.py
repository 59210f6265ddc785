"""Engines that hang: the caller goes on, and nothing of his is touched any more."""

from __future__ import annotations

import ctypes
import gc
import itertools
import logging
import math
import subprocess
import sys
import threading
import weakref
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from parnet_deploy import Runtime
from parnet_deploy.errors import BackendError, ExecutionError, InputError, SpecError, TimedOutError
from parnet_deploy.placement import streams
from parnet_deploy.runtime import watchdog as module
from parnet_deploy.runtime.arrays.inputs import address_of
from tests.chaos.faulty import HANG_S, Faults, FaultyBackend
from tests.runtime.runtime_toys import images, make_plan, reference, write_engines
from tests.runtime.test_session import SIZE, SPEC, close_to

ROOT = Path(__file__).parents[2]
STREAMS = make_plan(streams(SPEC), SIZE, 4, threads=1)
SOON_S = 0.05
"""A limit for calls that hang. Others have ``HANG_S``, for the machine may be busy."""


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write_engines(SPEC, STREAMS, tmp_path_factory.mktemp("engines"))


@pytest.fixture
def faults():
    found = Faults()
    yield found
    found.let()


@pytest.fixture
def open_it(files, faults):
    opened = []

    def make(slots: int = 1, **more) -> Runtime:
        backend = FaultyBackend(faults)
        limit = {"timeout_s": HANG_S, **more}
        rt = Runtime.from_plan(SPEC, STREAMS, files, backend=backend, slots=slots, **limit)
        opened.append(rt)
        return rt

    yield make
    faults.let()
    for rt in opened:
        limit(rt, HANG_S)
        rt.close()


@pytest.fixture
def calls(monkeypatch):
    """Every call that is made, to know when one that was given up has come back."""
    made = []

    class Kept(module.Call):
        def __post_init__(self) -> None:
            super().__post_init__()
            made.append(self)

    monkeypatch.setattr(module, "Call", Kept)
    return made


def limit(rt: Runtime, seconds: float) -> None:
    rt._now.host._timeout_s = seconds


def hang(rt: Runtime, faults: Faults, segment: str, x) -> None:
    """A call that hangs and is given up."""
    limit(rt, SOON_S)
    faults.hang(segment)
    with pytest.raises(TimedOutError, match=r"got no answer from its engines in 0\.05 s"):
        rt(x)
    faults.wait_for_hang()


def come_back(faults: Faults, calls) -> None:
    """Let what hangs go on, and wait until it has."""
    faults.let()
    assert calls[-1].done.acquire(timeout=HANG_S)


SEGMENTS = [segment.name for segment in STREAMS.placement.segments]


@pytest.mark.parametrize("segment", SEGMENTS)
def test_after_a_time_out_nothing_of_the_caller_is_read_or_written(open_it, faults, calls, segment):
    rt, x = open_it(), images(SPEC, 2)
    mine, logits = x.copy(), np.full((2, SPEC.num_classes), 7, np.float32)
    assert close_to(rt(x), reference(SPEC, x))
    limit(rt, SOON_S)
    faults.hang(segment)
    with pytest.raises(TimedOutError, match=r"in 0\.05 s, expected one"):
        rt.run_into(address_of(mine), address_of(logits), 2)
    mine[:] = np.nan  # and what would read it now would show in the slot
    come_back(faults, calls)
    assert np.all(logits == 7)
    assert not calls[-1].finished
    slot = rt._now.executor._slots[0]
    late = np.ctypeslib.as_array((ctypes.c_float * logits.size).from_address(slot._result))
    assert close_to(late.reshape(logits.shape), reference(SPEC, x))  # it did end, and rightly
    limit(rt, HANG_S)
    assert rt.stuck == 0
    for seed in range(3):
        x = images(SPEC, 1 + seed, seed)
        assert close_to(rt(x), reference(SPEC, x))


def test_a_slot_comes_back_only_with_its_engines(open_it, faults, calls):
    rt, x = open_it(slots=2), images(SPEC)
    hang(rt, faults, "stream1", x)
    stuck, free = calls[-1], rt._now.executor._free
    assert (rt.stuck, free.qsize()) == (1, 1)
    faults.hanging = frozenset()  # the other slot works
    for seed in range(4):
        x = images(SPEC, 1, seed)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(rt._now.host, "_timeout_s", HANG_S)
            assert close_to(rt(x), reference(SPEC, x))
    assert (rt.stuck, free.qsize()) == (1, 1)
    faults.let()
    assert stuck.done.acquire(timeout=HANG_S)
    assert (rt.stuck, free.qsize()) == (0, 2)


def test_when_all_are_stuck_calls_are_refused_at_once(open_it, faults, monkeypatch):
    rt, x = open_it(slots=2), images(SPEC)
    for _ in range(2):
        hang(rt, faults, "head", x)
    assert rt.stuck == 2
    monkeypatch.setattr(rt._now.host._crew, "put", forbidden)
    for ask in (rt, lambda x: rt.submit(x).result()):
        with pytest.raises(TimedOutError, match="from the engines of all 2 slots"):
            ask(x)


def test_whoever_waits_for_a_slot_that_gets_stuck_is_told(open_it, faults):
    rt, x, told = open_it(), images(SPEC), []

    def ask() -> None:
        with pytest.raises(TimedOutError):
            rt(x)
        told.append(True)

    limit(rt, SOON_S)
    faults.hang("stream0")
    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(HANG_S)
    assert len(told) == 8


def test_what_was_given_up_before_its_turn_is_never_begun(open_it, faults, calls):
    rt, x, told, ran = open_it(), images(SPEC), threading.Semaphore(0), []

    def ask() -> None:
        with pytest.raises(TimedOutError):
            rt(x)
        told.release()

    faults.hang("head")
    limit(rt, 1.0)
    for _ in range(2):
        threading.Thread(target=ask).start()
    for _ in range(2):
        assert told.acquire(timeout=HANG_S)
    faults.before = ran.append
    faults.let()
    for call in calls:
        assert call.done.acquire(timeout=HANG_S)
    assert "stem0" not in ran
    limit(rt, HANG_S)
    assert close_to(rt(x), reference(SPEC, x))


def test_waiting_for_a_turn_does_not_count(open_it):
    rt = open_it()
    dog, now = rt._now.host, module.time.monotonic()
    limit(rt, 100.0)
    call = SimpleNamespace(since=None)
    assert dog._left_s(call) == 100.0  # nothing runs
    dog._crew._shared.since[0] = now - 60.0
    assert 30.0 < dog._left_s(call) <= 40.0  # somebody runs, and may yet come back
    dog._crew._shared.since[0] = now - 110.0
    assert dog._left_s(call) <= 0
    call.since = now
    assert 90.0 < dog._left_s(call) <= 100.0
    dog._crew._shared.since[0] = math.inf


def test_many_callers_while_engines_hang_now_and_then(open_it, faults):
    """Every call is answered rightly or given up; no two are ever in one buffer."""
    rt, wrong, ends = open_it(slots=3), [], {"answered": 0, "given up": 0}
    pause, count = threading.Event(), itertools.count()

    def before(segment: str) -> None:
        if segment == "stream0" and next(count) % 7 == 0:
            pause.wait(3 * SOON_S)

    def ask(seed: int) -> None:
        for index in range(12):
            x = images(SPEC, 1 + seed % 3, 100 * seed + index)
            logits = np.full((len(x), SPEC.num_classes), 7, np.float32)
            try:
                rt.run_into(address_of(x), address_of(logits), len(x))
                ends["answered"] += 1
                wrong.extend([seed] * (not close_to(logits, reference(SPEC, x))))
            except TimedOutError:
                ends["given up"] += 1
                wrong.extend([seed] * (not np.all(logits == 7)))

    limit(rt, SOON_S)
    faults.before = before
    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(HANG_S)
    assert wrong == []
    assert min(ends.values()) > 0
    assert sum(ends.values()) == 72


def test_what_the_engine_raises_comes_through(open_it, faults):
    rt, x = open_it(), images(SPEC)
    faults.failing = frozenset({"head"})
    for _ in range(2):
        with pytest.raises(ExecutionError, match="segment head: the engine failed"):
            rt(x)
    faults.failing = frozenset()
    assert close_to(rt(x), reference(SPEC, x))


def test_what_is_not_accepted_is_refused_before_anything_is_copied(open_it, monkeypatch):
    rt = open_it()
    monkeypatch.setattr(rt._now.host._crew, "put", forbidden)
    with pytest.raises(InputError, match="batch: got 5"):
        rt(images(SPEC, 5))


@pytest.mark.parametrize("wrong", [0, -1, float("nan"), float("inf"), 1e9, True, "1"])
def test_a_limit_that_cannot_be(files, wrong):
    with pytest.raises(SpecError, match=r"timeout_s: got .*, expected seconds above 0"):
        Runtime.from_plan(SPEC, STREAMS, files, timeout_s=wrong)


class TestClose:
    def test_it_leaves_what_is_stuck_behind_and_frees_it_when_it_comes_back(
        self, open_it, faults, caplog
    ):
        rt, x = open_it(slots=2), images(SPEC)
        hang(rt, faults, "head", x)
        with caplog.at_level(logging.ERROR, "parnet_deploy"):
            rt.close()
            rt.close()
        assert (
            "1 of 2 slots did not come back; engines, buffers and threads are left" in caplog.text
        )
        assert not faults.closed.is_set()
        with pytest.raises(BackendError, match="it is closed"):
            rt(x)
        faults.let()
        assert faults.closed.wait(HANG_S)

    def test_it_waits_for_what_is_not_stuck(self, open_it, faults):
        rt, x, found = open_it(), images(SPEC), []
        faults.hang("head")
        caller = threading.Thread(target=lambda: found.append(rt(x)))
        caller.start()
        faults.wait_for_hang()
        closer = threading.Thread(target=rt.close)
        closer.start()
        assert not faults.closed.is_set()
        faults.let()
        for thread in (caller, closer):
            thread.join(HANG_S)
        assert close_to(found[0], reference(SPEC, x))
        assert faults.closed.is_set()

    def test_whoever_waits_for_a_turn_is_refused(self, open_it, faults):
        rt, x, refused = open_it(), images(SPEC), []

        def ask() -> None:
            with pytest.raises(BackendError, match="it is closed"):
                rt(x)
            refused.append(True)

        faults.hang("head")
        running = threading.Thread(target=rt, args=(x,))
        running.start()
        faults.wait_for_hang()
        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        rt._now.host._closed = rt._now.host._crew._shared.closed = True  # close has begun
        faults.let()
        for thread in (*threads, running):
            thread.join(HANG_S)
        assert refused == [True] * 3
        rt._now.host._crew._shared.closed = False  # so that it does end the threads

    def test_threads_end_with_a_runtime_that_nobody_closed(self, files):
        before = set(threading.enumerate())
        rt = Runtime.from_plan(SPEC, STREAMS, files, timeout_s=HANG_S, slots=2)
        rt(images(SPEC))
        there = weakref.ref(rt)
        threads = [t for t in set(threading.enumerate()) - before if "watched" in t.name]
        assert len(threads) == 2
        del rt
        gc.collect()
        assert there() is None
        for thread in threads:
            thread.join(HANG_S)
            assert not thread.is_alive()

    def test_a_process_ends_though_an_engine_hangs(self):
        program = """
from tests.runtime.test_watchdog import *
import tempfile, pathlib
faults = Faults()
with tempfile.TemporaryDirectory() as folder:
    found = write_engines(SPEC, STREAMS, pathlib.Path(folder))
    backend = FaultyBackend(faults)
    rt = Runtime.from_plan(SPEC, STREAMS, found, backend=backend, timeout_s=HANG_S)
hang(rt, faults, "head", images(SPEC))
print("at its end")
"""
        done = subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            text=True,
            timeout=HANG_S,
            cwd=ROOT,
        )
        assert (done.returncode, done.stdout) == (0, "at its end\n"), done.stderr


def forbidden(*_: object) -> None:
    raise AssertionError("this must not be called")
