"""Killed at a change on the disk, whichever it is: the old deployment or the new one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.chaos import kills
from tests.chaos.commands import Place

Copy = Callable[[str], Place]

COMMANDS = ("fuse b", "export range", "calibrate mse", "build streams", "verify", "bench")
"""Each replaces something in the full deployment, and most drop what was made from it."""

SAMPLES = 3


def points(total: int, samples: int) -> Iterator[int]:
    """Some of the points 1 to total, evenly, the first and the last among them."""
    yield from sorted({1 + (total - 1) * i // (samples - 1) for i in range(samples)})


def states(copy: Copy, command: str, samples: int | None) -> tuple[list[str], int]:
    """Whether the old or the new deployment was there after a kill at each point; how many killed.

    What was killed is then run to its end, with the same result as if nothing had happened.
    """
    undisturbed = copy("undisturbed")
    old = undisturbed.look()
    total = undisturbed.run(command).changes
    new = undisturbed.look()
    assert old["digest"] != new["digest"]
    found = []
    for at in points(total, samples or total):
        place = copy(f"at{at}")
        ended = place.run(command, at=at)
        assert ended.killed, (at, ended)
        found.append(state(place, old, new))
        place.finish(command)
        assert state(place, old, new) == "new"
        assert place.left == []
        place.remove()
    return found, total


def state(place: Place, old: dict[str, Any], new: dict[str, Any]) -> str:
    """Which of the two it is; fails if it is neither, or half."""
    found = place.look()
    assert found["broken"] == found["foreign"] == []
    if found["digest"] == old["digest"]:
        assert found == old
        return "old"
    assert {**found, "digest": ""} == {**new, "digest": ""}
    return "new"


@pytest.mark.slow
@pytest.mark.parametrize("command", ["fuse b", "calibrate mse", "build streams"])
def test_killed_at_some_changes(command: str, copy: Copy) -> None:
    found, total = states(copy, command, SAMPLES)
    assert total > 10
    assert found == sorted(found, reverse=True), "once new, always new"
    assert found[0] == "old"
    assert found[-1] == "new"


@pytest.mark.chaos
@pytest.mark.parametrize("command", COMMANDS)
def test_killed_at_every_change(command: str, copy: Copy) -> None:
    found, total = states(copy, command, None)
    assert len(found) == total > 10
    assert found == sorted(found, reverse=True), "once new, always new"
    assert set(found) == {"old", "new"}


@pytest.mark.slow
def test_killed_at_random_moments(tmp_path: Path) -> None:
    quick = [command for command in kills.COMMANDS if command != "bench"]
    summary = kills.run(10, tmp_path, lanes=1, commands=quick)
    assert summary["lost"] == []
    assert summary["kills"] == 10
    assert summary["counts"]["run again"] > 0
