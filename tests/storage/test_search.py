"""Which deployment a command takes, and how it says so."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from parnet_deploy.deployment import find_deployment
from parnet_deploy.errors import DeploymentError, DeploymentNotFoundError
from tests.storage.states import NEW, OLD, write_state


@pytest.fixture
def engines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory's engines/, as the command line passes it: relative."""
    monkeypatch.chdir(tmp_path)
    return Path("engines")


def test_none_at_all(engines: Path) -> None:
    for _ in range(2):
        with pytest.raises(DeploymentNotFoundError, match=r"got none.*Run: parnet-deploy fuse"):
            find_deployment(None, engines)
        engines.mkdir(exist_ok=True)
        (engines / "README.md").write_bytes(b"")
        (engines / "no-deployment").mkdir(exist_ok=True)


def test_the_only_one(engines: Path) -> None:
    write_state(engines / "a", OLD)
    (engines / "failed").mkdir()
    path, reason = find_deployment(None, engines)
    assert path == engines / "a"
    assert reason == "a: the only deployment in engines"


def test_the_last_written(engines: Path) -> None:
    for name in ("b", "a", "c"):
        write_state(engines / name, OLD)
    write_state(engines / "a", NEW)
    path, reason = find_deployment(None, engines)
    assert path == engines / "a"
    assert reason == "a: the last written of 3 deployments in engines"


def test_copies_have_the_same_time_so_the_name_must_be_given(engines: Path) -> None:
    write_state(engines / "a", OLD)
    shutil.copytree(engines / "a", engines / "b")
    with pytest.raises(DeploymentNotFoundError, match=r"got 2 \(a, b; several .+expected a name"):
        find_deployment(None, engines)
    assert find_deployment("b", engines).path == engines / "b"


def test_one_that_cannot_be_read_makes_it_ambiguous(engines: Path) -> None:
    write_state(engines / "a", OLD)
    write_state(engines / "b", OLD)
    (engines / "a" / "deployment.json").write_bytes(b"{}")
    with pytest.raises(DeploymentNotFoundError, match=r"a cannot be read.*Name one"):
        find_deployment(None, engines)
    assert find_deployment("b", engines).path == engines / "b"


def test_name_and_path(engines: Path, tmp_path: Path) -> None:
    write_state(engines / "a", OLD)
    write_state(tmp_path / "a", OLD)
    write_state(tmp_path / "only-here", OLD)
    assert find_deployment("a", engines).path == engines / "a"
    assert find_deployment("./a", engines).path == Path("a")
    assert find_deployment(str(tmp_path / "a"), engines).path == tmp_path / "a"
    assert find_deployment("engines/a/deployment.json", engines).path == engines / "a"
    assert find_deployment("only-here", engines).path == Path("only-here")


def test_unknown_name_lists_what_there_is(engines: Path) -> None:
    write_state(engines / "parnet-s", OLD)
    write_state(engines / "digits", OLD)
    expected = "(known: digits, parnet-s). Did you mean parnet-s?"
    with pytest.raises(DeploymentNotFoundError, match=re.escape(expected)):
        find_deployment("parnets", engines)
    with pytest.raises(DeploymentNotFoundError, match=r"\. Run: parnet-deploy fuse"):
        find_deployment("zzz", engines)
    for name in ("../engines/zzz", "", "\0", "x" * 5000):
        with pytest.raises(DeploymentError):
            find_deployment(name, engines)
