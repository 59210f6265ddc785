"""Exceptions of signal handlers (Ctrl-C, alarms) at any point of a call: no slot is ever lost."""

from __future__ import annotations

import signal
import sys
import threading

import numpy as np
import pytest

from parnet_deploy.errors import BackendError
from parnet_deploy.placement import one
from parnet_deploy.runtime import executor as module
from parnet_deploy.runtime.fake.options import FakeOptions
from tests.runtime.runtime_toys import SPECS, fake_executor, images, reference, run

SPEC = SPECS[2]


class Interrupt(BaseException):
    """What a handler raises."""


class Tracer:
    """Raises before the n-th bytecode that the executor runs, as a signal handler may."""

    def __init__(self, at: int) -> None:
        self.left = at

    def __call__(self, frame, event, arg):
        if frame.f_code.co_filename != module.__file__:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            self.left -= 1
            if self.left == 0:
                raise Interrupt
        return self


def interrupted(call, at: int) -> bool:
    """Whether the call was still running at its n-th bytecode."""
    before = sys.gettrace()
    sys.settrace(Tracer(at))
    try:
        call()
    except Interrupt:
        return True
    finally:
        sys.settrace(before)
    return False


def closes(executor) -> bool:
    """Whether close comes back."""
    closer = threading.Thread(target=executor.close, daemon=True)
    closer.start()
    closer.join(30)
    return not closer.is_alive()


def test_an_exception_before_any_bytecode_of_a_call_loses_no_slot():
    executor, x = fake_executor(SPEC, one(SPEC), FakeOptions()), images(SPEC)
    expected, at = reference(SPEC, x), 1
    while interrupted(lambda: run(executor, SPEC, x), at):
        assert executor._free.qsize() == 1, f"the slot was lost at bytecode {at}"
        at += 1
    assert at > 30
    np.testing.assert_array_equal(run(executor, SPEC, x), expected)
    assert closes(executor)


def test_an_exception_before_any_bytecode_of_close_does_not_keep_the_next_from_closing():
    at, more = 1, True
    while more:
        executor = fake_executor(SPEC, one(SPEC), FakeOptions(), slots=2)
        more = interrupted(executor.close, at)
        executor.close()  # in the same thread: at the end of a with the lock may still be held
        assert [d.used_bytes for d in executor._devices.values()] == [0], at
        with pytest.raises(BackendError, match="it is closed"):
            run(executor, SPEC, images(SPEC))
        at += 1
    assert at > 10


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs POSIX timers")
def test_alarms_lose_no_slot(monkeypatch):
    # The simulator is no device that survives an exception in its middle; the executor is tested.
    monkeypatch.setattr(module.Slot, "run", lambda *_: sum(range(100)))
    executor, x = fake_executor(SPEC, one(SPEC), FakeOptions()), images(SPEC)
    rng, hits = np.random.default_rng(0), 0

    def handler(*_: object) -> None:
        raise Interrupt

    before = signal.signal(signal.SIGALRM, handler)
    try:
        for _ in range(3000):
            try:
                signal.setitimer(signal.ITIMER_REAL, rng.uniform(1e-6, 2e-4))
                for _ in range(20):
                    run(executor, SPEC, x)
                signal.setitimer(signal.ITIMER_REAL, 0)
            except Interrupt:
                hits += 1
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
            assert executor._free.qsize() == 1
    finally:
        signal.signal(signal.SIGALRM, before)
    assert hits
    run(executor, SPEC, x)
    assert closes(executor)
