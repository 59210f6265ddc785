"""A disk that is full, read-only or broken: exit code 1, one line, and the deployment as it was."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

import pytest

from tests.chaos import disk
from tests.chaos.commands import Ended, Place, Zygote
from tests.chaos.faults import Fault
from tests.chaos.test_kills import COMMANDS, points, state
from tests.stubs.compiled import missing

Copy = Callable[[str], Place]

CODES = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EACCES)
WORDS = {code: os.strerror(code) for code in CODES}


def check(place: Place, ended: Ended, old: dict[str, Any], new: dict[str, Any]) -> str:
    """It either went on without what failed, or says so; old or new is there, and nothing else."""
    found = state(place, old, new)
    if ended.status == 0:
        assert found == "new", ended
        return "done"
    said = ended.refused()
    assert any(words in said for words in WORDS.values()), said
    assert "run the command again" in said or "Nothing was published" in said, said
    return found


def refusals(copy: Copy, command: str, samples: int | None) -> list[str]:
    """What came of an error at each change; after each, the command does its work."""
    undisturbed = copy("undisturbed")
    old = undisturbed.look()
    total = undisturbed.run(command).changes
    new = undisturbed.look()
    outcomes = []
    for at in points(total, samples or total):
        place = copy(f"at{at}")
        ended = place.run(command, at=at, code=CODES[at % len(CODES)])
        outcomes.append(check(place, ended, old, new))
        place.finish(command)
        assert state(place, old, new) == "new"
        assert place.left == []
        place.remove()
    return outcomes


@pytest.mark.slow
@pytest.mark.parametrize("command", ["fuse b", "build streams"])
def test_an_error_at_some_changes(command: str, copy: Copy) -> None:
    assert "old" in refusals(copy, command, 3)


@pytest.mark.chaos
@pytest.mark.parametrize("command", COMMANDS)
def test_an_error_at_every_change(command: str, copy: Copy) -> None:
    assert {"old", "new"} <= set(refusals(copy, command, None))


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS[:-1])
def test_no_file_may_be_large(command: str, copy: Copy) -> None:
    place = copy("small")
    old = place.look()
    said = place.run(command, limits={"file_bytes": 1024}).refused()
    assert "Raise the limit on the size of files" in said or "temporary folder" in said
    assert place.look() == old


@pytest.mark.slow
def test_no_room_for_temporary_files(copy: Copy) -> None:
    place = copy("temporary")
    old = place.look()
    after_probe = 3  # of the folder by Python, which takes another if it can write nothing
    fault = Fault(root=str(place.temporary), at=after_probe, code=errno.ENOSPC)
    said = place.call("build", "net", "--placement", "one", fault=asdict(fault)).refused()
    assert f"temporary folder {place.temporary}" in said
    assert "No space left on device" in said
    assert place.look() == old
    assert place.left == []


@pytest.fixture(scope="module")
def small(full: Place, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A place whose deployments are on a small disk, seen by its zygote only."""
    root = full.copy(tmp_path_factory.mktemp("small") / "place").root
    lack = disk.lacking(root / "engines")
    if lack is not None:
        missing(lack)
    with Zygote(before=disk.mounted(root / "engines")) as zygote:
        yield Place(root, zygote)


def do(place: Place, function: str, *arguments: object) -> str:
    """Something of ``disk``, where the disk is seen."""
    ended = place.zygote.ask(
        action="function",
        entry=f"tests.chaos.disk:{function}",
        arguments=arguments,
        cwd=str(place.root),
    )
    assert ended.status == 0, ended
    return ended.out


def check_full(small: Place, full: Place, command: str, *rooms_kib: int) -> None:
    """From no room at all to enough: the old one and a line that says why, then the new one."""
    engines, outcomes = str(small.deployment.parent), []
    for free_kib in rooms_kib:
        do(small, "put", str(full.deployment), engines)
        old = small.look()
        do(small, "fill", engines, free_kib << 10)
        ended = small.run(command)
        if ended.status:
            assert "No space left on device" in ended.refused()
            assert "Free some" in ended.refused()
            assert small.look() == old
        outcomes.append(ended.status)
    assert outcomes == sorted(outcomes, reverse=True)
    assert (outcomes[0], outcomes[-1]) == (1, 0)


@pytest.mark.slow
@pytest.mark.parametrize("command", ["fuse b", "build streams"])
def test_a_disk_that_is_full(command: str, small: Place, full: Place) -> None:
    check_full(small, full, command, 0, 64, 2048)


@pytest.mark.chaos
@pytest.mark.parametrize("command", COMMANDS[:-1])
def test_a_disk_that_is_ever_less_full(command: str, small: Place, full: Place) -> None:
    check_full(small, full, command, *range(0, 256, 16), 2048)


@pytest.mark.slow
def test_a_disk_that_is_read_only(small: Place, full: Place) -> None:
    engines = str(small.deployment.parent)
    do(small, "put", str(full.deployment), engines)
    old = small.look()
    do(small, "set_writable", engines, False)
    for command in COMMANDS:
        said = small.run(command).refused()
        assert "Read-only file system" in said or "cannot be written to" in said, (command, said)
    assert small.look() == old, "reading needs no writing"
    do(small, "set_writable", engines, True)
