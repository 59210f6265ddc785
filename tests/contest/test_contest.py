"""Arms in processes of their own: what is known of them, what is caught, and that all of them end.

How long anything takes is not tested.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from parnet_deploy.bench.result import OURS
from parnet_deploy.contest import contest as module
from parnet_deploy.contest.arm import ArmSpec
from parnet_deploy.contest.contest import Contest, Limits
from parnet_deploy.contest.entrant import Question
from parnet_deploy.contest.order import PACED_CALLS
from parnet_deploy.errors import (
    BackendError,
    CheckFailedError,
    EngineLoadError,
    ExecutionError,
    MissingExtraError,
    SpecError,
)
from tests.contest import toy_arms

ROOT = Path(__file__).parents[3]
IMAGE = np.random.default_rng(0).standard_normal((2, 3, 4, 4)).astype(np.float32)
LOGITS = toy_arms.answer(IMAGE)
EXIT_S = 60.0  # after which a process that should have ended counts as left over


def arm(name: str, function: str, network: Any = "same", extra: str | None = None, **options: Any):
    entry = f"{toy_arms.HERE}:{function}"
    return ArmSpec(name=name, entry=entry, options=options, network=network, extra=extra)


def contest(*specs: ArmSpec, **more: Any) -> Contest:
    return Contest([arm(OURS, "open_toy"), *specs], IMAGE, LOGITS, **more)


def ends(pid: int) -> bool:
    """Wait for a process that is not a child of this one; whether it ended."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([handle], [], [], EXIT_S)[0])
    finally:
        os.close(handle)


def test_every_arm_has_a_process_of_its_own() -> None:
    with contest(arm("other", "open_toy", colour="blue")) as running:
        pids = {entrant.facts["pid"] for entrant in running.entrants.values()}
        assert len(pids | {os.getpid()}) == 3
        other = running.entrants["other"]
        assert other.facts["colour"] == "blue"
        assert (other.note, other.model_bytes, other.parameters) == ("a toy", 7, None)
        assert other.import_ms > 0
        assert other.load_ms >= 0
        running.check()
        assert other.first_ms > 0
        assert other.memory_mib is None or other.memory_mib > 0
    assert all(map(ends, pids))


def test_the_load_time_is_the_one_that_the_arm_tells() -> None:
    with contest(arm("told", "open_scaled", factor=1.0)) as running:
        assert running.entrants["told"].load_ms == 12.5


def test_threads_do_not_spin_unless_somebody_wants_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.setenv("TOY", "1")
    plain = arm("plain", "open_environment")
    other = replace(plain, name="other", environment={"TOY": None, "OMP_WAIT_POLICY": "ACTIVE"})
    with contest(plain, other) as running:
        found = {name: running.entrants[name].facts for name in ("plain", "other")}
    names = ("OMP_WAIT_POLICY", "TOY")
    assert [found["plain"].get(name) for name in names] == ["PASSIVE", "1"]
    assert [found["other"].get(name) for name in names] == ["ACTIVE", None]


def test_what_an_arm_prints_does_no_harm(capfd: pytest.CaptureFixture[str]) -> None:
    with contest(arm("loud", "open_talkative")) as running:
        running.check()
    assert list(running.entrants) == [OURS, "loud"]
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("after", [0, 1])
def test_a_wrong_arm_is_caught_at_its_first_call_and_after(after: int) -> None:
    with (
        contest(arm("wrong", "open_scaled", factor=1.001, after=after)) as running,
        pytest.raises(CheckFailedError, match=r"arm wrong: error 1\.0.e-03"),
    ):
        running.check()


def test_a_small_difference_is_within_the_tolerance() -> None:
    with contest(arm("close", "open_scaled", factor=1 + 1e-6)) as running:
        running.check()
        check = running.entrants["close"].check
    assert check is not None
    assert check["passed"] is True
    assert 0 < check["error"] < check["limit"] == 1e-4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"error": 2e-3}, "against a sum by hand: got error 2.00e-03, expected 1e-03 or less"),
        ({"error": float("nan")}, "got error nan"),
        ({"fill": float("inf")}, "NaN or Inf"),
        ({"rows": 5}, r"shape \(5, 4\), expected one row for each of 2 images"),
    ],
)
def test_another_network_is_held_to_its_own_check(options: dict[str, Any], message: str) -> None:
    with (
        contest(arm("resnet", "open_checked", network="other", **options)) as running,
        pytest.raises(CheckFailedError, match=f"arm resnet: .*{message}"),
    ):
        running.check()


def test_another_network_that_is_right() -> None:
    with contest(arm("resnet", "open_checked", network="other", error=5e-4)) as running:
        running.check()
        found = running.entrants["resnet"].check
    assert found == {
        "what": "against a sum by hand",
        "error": 5e-4,
        "limit": 1e-3,
        "passed": True,
    }


def test_another_network_without_a_check_is_refused() -> None:
    with (
        contest(arm("resnet", "open_toy", network="other")) as running,
        pytest.raises(CheckFailedError, match="nor a check of its own"),
    ):
        running.check()


def test_lower_precision_is_held_to_its_own_check_and_full_precision_is_not() -> None:
    with contest(arm("int8", "open_checked", precision="int8")) as running:
        running.check()
    with (
        contest(arm("fp32", "open_checked")) as running,
        pytest.raises(CheckFailedError, match="arm fp32: got shape"),
    ):
        running.check()


def test_an_arm_may_be_asked_something_else() -> None:
    other = Question(image=IMAGE[:1], logits=LOGITS[:1])
    with contest(arm("one", "open_toy"), questions={"one": other}) as running:
        running.check()
        assert set(running.rounds("saturated", 2)) == {OURS, "one"}


REASONS = {
    "module": "package no_such_package: not installed. Run: pip install 'parnet-deploy[few]'.",
    "extra": "package torch: not installed. Run: pip install 'parnet-deploy[export]'.",
    "ours": "engine x: cannot be loaded.",
    "bug": "KeyError: 'colour'",
}


@pytest.mark.parametrize("kind", REASONS)
def test_an_arm_that_cannot_be_opened_is_left_out_with_the_reason(kind: str) -> None:
    with contest(arm("absent", "open_raising", extra="few", kind=kind)) as running:
        running.check()
        assert list(running.entrants) == [OURS]
    assert running.left_out == {"absent": REASONS[kind]}


@pytest.mark.parametrize(
    ("kind", "error"),
    [("module", MissingExtraError), ("ours", EngineLoadError), ("bug", BackendError)],
)
def test_ours_cannot_be_left_out(kind: str, error: type[Exception]) -> None:
    spec = arm(OURS, "open_raising", extra="few", kind=kind)
    with pytest.raises(error), Contest([arm("b", "open_toy"), spec], IMAGE, LOGITS):
        raise AssertionError("opened")


def test_a_check_that_fails_while_opening_is_a_failed_check() -> None:
    with (
        pytest.raises(CheckFailedError, match="arm other: canary: another answer"),
        contest(arm("other", "open_raising", kind="check")),
    ):
        raise AssertionError("opened")


ENDINGS = {
    "raises": "ArithmeticError: the pool is gone",
    "exits": "its process ended with status 3: first | last words",
    "is killed": "its process was ended by SIGKILL (is there too little memory?)",
    "hangs": "no answer to 'warm_up' within 3 s",
}


@pytest.mark.parametrize("how", ENDINGS)
def test_an_arm_that_fails_before_the_timing_is_left_out(how: str) -> None:
    with contest(arm("bad", "open_dying", how=how, after=1), limits=Limits(call_s=1.0)) as running:
        pid = running.entrants["bad"].facts["pid"]
        running.check()
        assert ends(pid)
        assert set(running.rounds("saturated", 2)) == {OURS}
    assert running.left_out == {"bad": ENDINGS[how]}


def test_an_arm_that_dies_while_it_is_opened_is_left_out() -> None:
    with contest(arm("bad", "open_dying", how="is killed", after=-1)) as running:
        assert "SIGKILL" in running.left_out["bad"]


@pytest.mark.parametrize("how", ["raises", "is killed"])
def test_an_arm_that_fails_while_it_is_timed_is_an_error(how: str) -> None:
    before = 1 + module.WARM_UP + module.TRIAL_ROUNDS
    with contest(arm("bad", "open_dying", how=how, after=before)) as running:
        running.check()
        with pytest.raises(ExecutionError, match=r"arm bad: round 1 of 9: .*Nothing was written"):
            running.rounds("saturated", 9)


def test_samples_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    stages: list[str] = []
    with contest(arm("other", "open_toy"), on_stage=stages.append) as running:
        running.check()
        saturated = running.rounds("saturated", 4)
        assert 1 < running.calls <= 16  # a toy's call is shorter than a millisecond
        assert {len(samples) for samples in saturated.values()} == {4 * running.calls}
        paced = running.rounds("paced", 2, rate_hz=500.0)
        assert running.calls == PACED_CALLS
        assert {len(samples) for samples in paced.values()} == {2 * PACED_CALLS}
        assert set(running.late) == {OURS, "other"}
        fitting = running.rounds("saturated", budget_s=0.0)
        assert len(fitting[OURS]) >= module.MIN_SAMPLES
    assert all(sample > 0 for samples in (saturated, paced) for sample in samples[OURS])
    assert stages[:2] == [f"opening {OURS}", "opening other"]
    assert "saturated: round 4 of 4" in stages
    assert "paced: round 2 of 2" in stages


def test_calls_that_are_slower_than_the_pace_are_counted() -> None:
    with contest() as running:
        running.check()
        running.rounds("paced", 3, rate_hz=1e6)
        assert running.late[OURS] >= 3 * PACED_CALLS


def test_names_are_unique() -> None:
    with pytest.raises(SpecError, match="every name once"):
        contest(arm(OURS, "open_toy"))


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs /proc")
def test_an_arm_whose_turn_it_is_not_sleeps() -> None:
    with contest(arm("other", "open_toy")) as running:
        running.check()
        running.rounds("saturated", 2)
        for entrant in running.entrants.values():
            assert falls_asleep(entrant.facts["pid"])


def falls_asleep(pid: int) -> bool:
    """Whether all threads of a process are seen sleeping at once; one that spins never is."""
    for _ in range(100_000):
        tasks = Path(f"/proc/{pid}/task").iterdir()
        states = {(task / "stat").read_text().rpartition(")")[2].split()[0] for task in tasks}
        if states == {"S"}:
            return True
        os.sched_yield()
    return False


def test_what_an_arm_has_started_ends_with_it() -> None:
    with contest(arm("compiler", "open_with_grandchild")) as running:
        grandchild = running.entrants["compiler"].facts["grandchild"]
        assert not select.select([os.pidfd_open(grandchild)], [], [], 0)[0]
    assert ends(grandchild)


PROGRAM = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever started us may ignore it
from tests.contest.test_contest import arm, contest
from parnet_deploy.contest.contest import Limits
hangs = arm("hangs", "open_dying", how="hangs", after=0)
with contest(arm("compiler", "open_with_grandchild"), hangs) as running:
    facts = [entrant.facts for entrant in running.entrants.values()]
    print(*(fact.get("pid") or fact["grandchild"] for fact in facts), flush=True)
    running.check()
"""


@pytest.fixture
def program() -> Iterator[subprocess.Popen[str]]:
    """Another process with a contest, in which an arm hangs."""
    command = [sys.executable, "-c", PROGRAM]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_process_outlives_the_parent(program: subprocess.Popen[str], number: int) -> None:
    assert program.stdout is not None
    pids = [int(pid) for pid in program.stdout.readline().split()]
    assert len(pids) == 3
    program.send_signal(number)
    assert program.wait(EXIT_S) != 0
    assert all(map(ends, pids))
