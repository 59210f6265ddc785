"""The harness of ``make chaos-runs`` in its short form, and the proof that it detects."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.chaos.mistakes import MISTAKES
from tests.chaos.runs import run_chunk, run_world
from tests.chaos.tally import Tally
from tests.chaos.worlds import KINDS, make_world

RUNS = 20_000


@pytest.mark.slow
def test_no_answer_is_wrong():
    tally, chunk = Tally(), 0
    while tally.total < RUNS:
        tally.add(run_chunk(7, chunk))
        chunk += 1
    assert tally.holds, tally.details
    assert set(tally.worlds) == set(KINDS)
    assert set(tally.runs) == {"call", "run_into", "submit", "launch", "enqueue"}
    assert {"ExecutionError", "DeviceLostError", "BackendError"} <= set(tally.errors)
    assert tally.cancelled


def test_a_world_is_the_same_every_time():
    assert make_world(5) == make_world(5)
    assert make_world(5) != make_world(6)
    first, second = run_world(make_world(5)), run_world(make_world(5))
    assert first.runs == second.runs


@pytest.mark.slow
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_noticed(mistake):
    command = [sys.executable, "-m", "tests.chaos.mistakes", mistake]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 3, done.stderr
