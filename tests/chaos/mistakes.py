"""Mistakes that the harness must notice: ``python -m tests.chaos.mistakes NAME`` ends with 3.

A program of its own, because a runtime with such a mistake may read memory that is gone.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from typing import Any

from parnet_deploy.runtime import executor
from parnet_deploy.runtime.device import Capture
from parnet_deploy.runtime.fake.device import FakeDevice
from parnet_deploy.runtime.outputs import OutputPool
from parnet_deploy.runtime.program import Program, compile_program
from parnet_deploy.runtime.slot import Slot
from tests.chaos.runs import run_chunk
from tests.chaos.tally import Tally
from tests.runtime.test_program import waits, without_step

CHUNKS = 60
"""In so many, any of them must have shown."""


def forget_a_wait() -> None:
    """A stream does not wait for one event. A capture would refuse many of these programs."""
    rng = random.Random(0)

    def forgetful(*arguments: Any) -> Program:
        program = compile_program(*arguments)
        found = waits(program)
        return without_step(program, rng.choice(found)) if found else program

    executor.compile_program = forgetful
    FakeDevice.capture = lambda *_: Capture(None, "not here")


def forget_the_call_before() -> None:
    """A call does not wait for one in a caller's stream."""
    bind = Slot.bind

    def forgetful(slot: Slot, shape: tuple[int, int, int]) -> object:
        bound = bind(slot, shape)
        slot._outside = False
        return bound

    Slot.bind = forgetful


def share_outputs() -> None:
    """An output that one stream has let go of is given to another at once."""
    take = OutputPool.take
    OutputPool.take = lambda pool, stream, *needs: take(pool, 1000, *needs)


def swallow_errors() -> None:
    """A call that failed returns as if it had not."""
    finish = Slot._finish

    def careless(*arguments: Any) -> None:
        try:
            finish(*arguments)
        except Exception:
            return

    Slot._finish = careless


MISTAKES: dict[str, Callable[[], None]] = {
    mistake.__name__: mistake
    for mistake in (forget_a_wait, forget_the_call_before, share_outputs, swallow_errors)
}


def main(name: str) -> int:
    """Make the mistake and run worlds until an answer is wrong: 3. None was: 0."""
    MISTAKES[name]()
    tally = Tally()
    for chunk in range(CHUNKS):
        tally.add(run_chunk(7, chunk))
        if tally.wrong:
            return 3
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
