"""A clock that is wrong, or jumps by years: no deadline, lock or order depends on it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path

import pytest

from parnet_deploy.deployment import Deployment, find_deployment
from parnet_deploy.errors import DeploymentNotFoundError
from parnet_deploy.runtime.choose import order_plans
from tests.chaos.clocks import YEAR_S, Clock
from tests.chaos.commands import ROOT, Place, Zygote
from tests.serve.load.known import make_known
from tests.serve.load.processes import drive, serving
from tests.storage.states import NEW, OLD, write_state

LIMIT_S = 60  # only so that a test that hangs ends
HOLDS = """
import sys, time
from parnet_deploy.deployment import Deployment
from parnet_deploy.errors import DeploymentError
print(len({time.time() // 1e7 for _ in range(20)}))
try:
    with Deployment.edit(sys.argv[1], wait_s=0.2):
        pass
except DeploymentError as error:
    print(error)
"""


@pytest.fixture(scope="module")
def clock(tmp_path_factory: pytest.TempPathFactory) -> Clock:
    return Clock(tmp_path_factory.mktemp("clock"))


@pytest.fixture(scope="module")
def shifted(clock: Clock) -> Iterator[Zygote]:
    """Runs commands under that clock."""
    with Zygote(environment=clock.environment) as zygote:
        yield zygote


def year(place: Place) -> int:
    """When the deployment says that it was written."""
    return datetime.fromisoformat(Deployment.open(place.deployment).written).year


@pytest.mark.slow
def test_commands_between_which_the_clock_jumps(
    shifted: Zygote, clock: Clock, tmp_path: Path
) -> None:
    """Ahead, back, to 1970: every step runs, what is done is skipped, and the order is right."""
    now = datetime.now(timezone.utc).year
    place = Place.make(tmp_path / "place", shifted)
    clock.set_back(now - 1970)
    place.finish("fuse a")
    assert year(place) == 1970
    clock.set_back(-30)
    place.finish("export")
    assert year(place) >= now + 29
    clock.set_back(0)
    place.finish("build")
    clock.set_back(20)
    place.finish("build streams", "verify")
    assert year(place) >= now + 29, "never earlier than what was written before"
    newest, older = order_plans(Deployment.open(place.deployment))
    assert "streams" in newest
    assert "one" in older
    digest = Deployment.open(place.deployment).digest
    for path in place.deployment.rglob("*"):
        os.utime(path, (60 * YEAR_S, 60 * YEAR_S) if path.suffix else (0, 0))
    place.finish("export", "build", "build streams")
    assert Deployment.open(place.deployment).digest == digest, "unchanged, so skipped"


@pytest.mark.slow
def test_a_clock_that_jumps_at_every_reading(shifted: Zygote, clock: Clock, tmp_path: Path) -> None:
    place = Place.make(tmp_path / "place", shifted)
    clock.jump()
    place.finish("fuse a", "export", "build", "calibrate", "build int8", "verify", "bench")
    found = place.look()
    assert found["broken"] == []
    assert len(found["answers"]) == 2
    clock.set_back(0)


def test_waiting_for_a_lock_ends_in_time(clock: Clock, tmp_path: Path) -> None:
    path = tmp_path / "model"
    write_state(path, OLD)
    clock.jump()
    command = [sys.executable, "-c", HOLDS, str(path)]
    environment = {**os.environ, **clock.environment}
    with Deployment.edit(path):
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=LIMIT_S
        )
    clock.set_back(0)
    times, said = done.stdout.splitlines()
    assert int(times) > 5, "the clock did jump"
    assert "expected no other writer after 0.2 s" in said


def written_at(path: Path, years: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A deployment written when the clock was so many years ahead."""

    class Later(datetime):
        @classmethod
        def now(cls, zone: timezone | None = None) -> datetime:
            return datetime.now(zone) + timedelta(days=365 * years)

    with monkeypatch.context() as patch:
        patch.setattr("parnet_deploy.storage.draft.datetime", Later)
        write_state(path, OLD)


def test_the_last_written_is_not_guessed_after_a_jump(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written_at(tmp_path / "a", 3, monkeypatch)
    write_state(tmp_path / "b", OLD)
    with pytest.raises(DeploymentNotFoundError, match=r"a was written at a time still to come"):
        find_deployment(None, tmp_path)
    assert find_deployment("b", tmp_path).path == tmp_path / "b"
    written_at(tmp_path / "b", 4, monkeypatch)
    assert find_deployment(None, tmp_path).path == tmp_path / "b", "by one clock, so in order"


def test_what_is_written_later_says_so_whatever_the_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written_at(tmp_path / "a", 5, monkeypatch)
    before = Deployment.open(tmp_path / "a").written
    write_state(tmp_path / "a", NEW)
    found = Deployment.open(tmp_path / "a")
    assert found.written > before
    assert found.steps["fuse"]["finished"] > before


@pytest.mark.slow
def test_a_server_whose_clock_jumps_keeps_its_deadlines(
    full: Place, clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every request has a deadline of a minute; none is late, and every answer is right.

    gRPC tells the time that is left by the system clock: read in the very moment of a jump it may
    be wrong, and the request refused. So its clock stands still while it is asked.
    """
    known = make_known(full.deployment, 8)
    rest = {"rest": 2, "each": 20, "deadlines_ms": (60_000, 60_001)}
    both = {**rest, "grpc": 2}
    changes = [(clock.jump, rest), *((partial(clock.set_back, n), both) for n in (20, -20))]
    with ExitStack() as stack:
        stack.callback(clock.set_back, 0)
        with monkeypatch.context() as patch:
            for name, value in clock.environment.items():
                patch.setenv(name, value)
            running = stack.enter_context(serving([full.deployment], tmp_path))
        for set_clock, load in changes:
            set_clock()
            (report,) = drive(running, known, tmp_path, load)
            assert report["ok"] == report["sent"] >= 40, json.dumps(report)
        assert "Traceback" not in running.complaints()
