"""Processes that die, for want of memory or otherwise: said so, nothing published, none left."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from parnet_deploy.bench.arms.elsewhere import make_elsewhere
from parnet_deploy.errors import BackendError
from tests.chaos.commands import Ended, Place
from tests.contest import toy_arms

Copy = Callable[[str], Place]

SHORT_OF = "is there too little memory?"


def run(place: Place, function: str, *arguments: object) -> Ended:
    """A function of ``children`` in a process of its own, of which no descendant may be left."""
    ended = place.zygote.ask(
        action="function",
        entry=f"tests.chaos.children:{function}",
        arguments=[str(place.deployment), *arguments],
        cwd=str(place.root),
        env={"TMPDIR": str(place.temporary)},
    )
    assert not ended.hung
    assert ended.orphans == 0
    return ended


@pytest.mark.slow
@pytest.mark.parametrize("timed", [True, pytest.param(False, marks=pytest.mark.chaos)])
def test_a_measuring_process_that_is_killed(timed: bool, copy: Copy) -> None:
    from tests.chaos.children import BEFORE_TIMING

    place = copy("bench")
    old = place.look()
    after = BEFORE_TIMING if timed else 0
    ended = run(place, "bench_beside", "is killed", after)
    assert ended.status == 0, ended
    assert "SIGKILL" in ended.out
    assert SHORT_OF in ended.out
    if timed:
        assert "ExecutionError" in ended.out
        assert "Nothing was written" in ended.out
        assert place.look() == old
    assert place.left == []


@pytest.mark.slow
def test_no_measuring_process_outlives_its_parent(copy: Copy) -> None:
    place = copy("bench")
    old = place.look()
    assert run(place, "bench_killed").killed
    assert place.look() == old


def test_a_process_that_makes_a_model_and_is_killed() -> None:
    with pytest.raises(BackendError, match=r"was ended by SIGKILL \(is there too little memory"):
        make_elsewhere(f"{toy_arms.HERE}:make_killed")


def without_memory(command: str, memory_mib: int, copy: Copy) -> int:
    """It either manages with what there is, or ends, and has changed nothing.

    A library that finds no memory says so in words of its own, so those are not checked. Commands
    that start threads are left out: where none at all is left, Python waits for ever for a thread
    that could not begin.
    """
    place = copy(f"poor{memory_mib}")
    old: dict[str, Any] = place.look()
    ended = place.run(command, limits={"memory_bytes": memory_mib << 20})
    assert ended.status in (0, 1), ended
    if ended.status:
        assert place.look() == old
    place.finish(command)
    place.remove()
    return ended.status


@pytest.mark.slow
def test_a_command_without_memory(copy: Copy) -> None:
    outcomes = [without_memory("fuse b", memory_mib, copy) for memory_mib in (0, 24, 256)]
    assert outcomes[0] == 1
    assert outcomes[-1] == 0


@pytest.mark.chaos
@pytest.mark.parametrize("command", ["fuse b", "export range"])
def test_a_command_with_any_memory(command: str, copy: Copy) -> None:
    outcomes = [without_memory(command, memory_mib, copy) for memory_mib in range(0, 96, 4)]
    assert 1 in outcomes
