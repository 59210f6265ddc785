"""Two commands on one deployment at once: one waits and says so, and both end well."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from parnet_deploy.deployment import WRITER_WAIT_S, Deployment
from parnet_deploy.errors import DeploymentError
from parnet_deploy.reference import random_image
from parnet_deploy.runtime.session import Runtime
from tests.chaos.commands import COMMANDS, ROOT, SPEC, Place, Zygote
from tests.chaos.state import SIDE
from tests.storage.lock_holder import other_process_holds

Copy = Callable[[str], Place]


@pytest.fixture(scope="module")
def second() -> Iterator[Zygote]:
    """Runs a command while the first zygote runs another."""
    with Zygote() as running:
        yield running


@contextmanager
def stopped_holder(path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that has the lock of a deployment and does not move."""
    with other_process_holds(path) as process:
        process.send_signal(signal.SIGSTOP)
        try:
            yield process
        finally:
            process.send_signal(signal.SIGCONT)


PAIRS = (
    ("build streams", "build streams"),
    ("build streams", "export range"),
    ("build streams", "build batch"),
    ("build streams", "verify"),
    ("fuse b", "fuse b"),
    ("fuse b", "export range"),
    ("calibrate mse", "build int8"),
)


@pytest.mark.slow
@pytest.mark.parametrize(
    "pair",
    [
        pytest.param(pair, marks=[pytest.mark.chaos] if i > 1 else [])
        for i, pair in enumerate(PAIRS)
    ],
    ids=" beside ".join,
)
def test_two_commands_at_once(pair: tuple[str, str], copy: Copy, second: Zygote) -> None:
    """What one cannot use any more it says; what is there is whole, and the loser may try again."""
    place = copy("both")
    other = Place(place.root, second)
    with ThreadPoolExecutor() as pool:
        ended = list(pool.map(lambda at, command: at.run(command), (place, other), pair))
    for done in ended:
        if done.status:
            said = done.refused()
            assert "while" in said, said
            assert "Run: parnet-deploy " in said or "again" in said, said
    assert any(done.status == 0 for done in ended)
    assert place.look()["broken"] == []
    assert place.left == []
    place.finish(pair[1])


@pytest.mark.slow
def test_a_program_that_runs_it_meanwhile(copy: Copy, full: Place) -> None:
    """It keeps the plan that it opened; one that opens it at any moment gets a whole one."""
    place = copy("busy")
    image = random_image(SPEC, SIDE, SIDE)
    right = next(iter(full.look()["answers"].values()))
    names = list(full.look()["answers"])
    with ThreadPoolExecutor() as pool, Runtime.open(place.deployment, plan=names[0]) as before:
        commands = pool.submit(place.finish, "build batch", "export range", "fuse b", "build")
        opened, refusals = 0, list[str]()
        while not commands.done():
            np.testing.assert_array_equal(before(image), right)
            try:
                with Runtime.open(place.deployment) as runtime:
                    assert np.isfinite(runtime(image)).all()
                    opened += 1
            except DeploymentError as error:
                refusals.append(str(error))
        commands.result()
    assert opened > 0
    assert all("plan" in said or "rewritten" in said for said in refusals), refusals


@pytest.mark.slow
def test_one_waits_and_says_so(copy: Copy) -> None:
    """A real command line, while this process writes."""
    place = copy("waiting")
    command = [sys.executable, "-m", "parnet_deploy", *COMMANDS["build streams"]]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    lines = []
    with Deployment.edit(place.deployment):
        process = subprocess.Popen(
            command, cwd=place.root, env=environment, stderr=subprocess.PIPE, text=True
        )
        assert process.stderr is not None
        while not any("is writing it" in line for line in lines):
            lines.append(process.stderr.readline())
            assert lines[-1], lines
    process.communicate()
    assert f"process {os.getpid()} on " in lines[-1]
    assert f"waiting up to {WRITER_WAIT_S:g} s" in lines[-1]
    assert process.returncode == 0
    assert "streams" in " ".join(place.look()["plans"])


@pytest.mark.chaos
def test_a_holder_that_stands_still_is_named(copy: Copy) -> None:
    place = copy("stuck")
    old = place.look()
    with stopped_holder(place.deployment) as holder:
        ended = place.run("build streams")
        said = ended.refused()
        assert place.look() == old, "readers do not wait"
    assert f"got the lock of process {holder.pid} on " in said
    assert f"no other writer after {WRITER_WAIT_S:g} s. Wait until it has ended, or end it" in said
    place.finish("build streams")
