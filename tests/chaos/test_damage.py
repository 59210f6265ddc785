"""Any file of a deployment damaged in any way: refused by name, or not needed for the answer."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parnet_deploy.deployment import Deployment
from parnet_deploy.errors import DeploymentError, ParnetDeployError
from parnet_deploy.reference import random_image
from parnet_deploy.runtime.session import Runtime
from parnet_deploy.storage import names
from tests.chaos.commands import COMMANDS, SPEC, Place
from tests.chaos.damage import Done, damages, repair
from tests.chaos.state import SIDE

INSPECT = "inspect"
CALLS = {**COMMANDS, INSPECT: (INSPECT, "net", "--layers", "--json")}
LIMIT_S = 60  # only so that a test that hangs ends
IMAGE = random_image(SPEC, SIDE, SIDE)


def pairs(files: list[str]) -> st.SearchStrategy[list[str]]:
    """Two different files."""
    return st.lists(st.sampled_from(files), min_size=2, max_size=2, unique=True)


@pytest.fixture(scope="module")
def target(full: Place, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A copy that each example damages and repairs."""
    return full.copy(tmp_path_factory.mktemp("damaged") / "place")


@pytest.fixture(scope="module")
def files(full: Place) -> list[str]:
    """Everything in the deployment."""
    found = [p.relative_to(full.deployment) for p in full.deployment.rglob("*") if p.is_file()]
    listed = sorted(path.as_posix() for path in found if path.name != names.LOCK)
    assert set(listed) == {*Deployment.open(full.deployment).artifacts, names.MANIFEST}
    kinds = {path.split("/")[0] for path in listed}
    assert {"fused.safetensors", "onnx", "onnx-int8-cpu", "plans", "reports"} <= kinds
    return listed


@pytest.fixture(scope="module")
def answers(full: Place) -> dict[str, Any]:
    """What each plan answers."""
    found: dict[str, Any] = full.look()["answers"]
    assert len(found) == 2
    return found


@contextmanager
def guard() -> Iterator[None]:
    """Ends what hangs."""

    def late(*_: object) -> NoReturn:
        raise TimeoutError("it hangs")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(LIMIT_S)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def content(path: Path) -> bytes | None:
    """Of a plain file, links followed; None of anything else."""
    return path.read_bytes() if path.is_file() else None


def needs(plan: str, names_: set[str]) -> set[str]:
    """Those of the files that the plan cannot run without."""
    return {name for name in names_ if name.startswith(f"plans/{plan}/")}


def check_answers(root: Path, names_: set[str], answers: dict[str, Any]) -> None:
    """Every plan that needs none of the files answers as ever; the others refuse, and say which."""
    for plan, right in answers.items():
        needed = needs(plan, names_)
        if not needed:
            with Runtime.open(root, plan=plan) as runtime:
                np.testing.assert_array_equal(runtime(IMAGE), right)
            continue
        with pytest.raises(ParnetDeployError) as caught:
            Runtime.open(root, plan=plan)
        assert any(name in str(caught.value) for name in needed)


def check_damage(
    target: Place, full: Place, files: list[str], answers: dict[str, Any], examples: int
) -> None:
    """Open, verify and run a damaged deployment, in this process."""

    @settings(max_examples=examples)
    @given(two=pairs(files), damage=damages())
    def check(two: list[str], damage: Done) -> None:
        try_damage(two, damage, target.deployment, full.deployment, answers)

    check()


def try_damage(
    two: list[str], damage: Done, root: Path, intact: Path, answers: dict[str, Any]
) -> None:
    """One of them."""
    name, other = two
    both = set(two)
    try:
        damage.do(root / name, root / other)
        bad = {n for n in both if content(root / n) != content(intact / n)}
        with guard():
            if names.MANIFEST in bad:
                with pytest.raises(DeploymentError, match=names.MANIFEST):
                    Deployment.open(root)
            else:
                found = Deployment.open(root).verify()
                assert {*found.missing, *found.changed} == bad
                check_answers(root, bad, answers)
    finally:
        repair(root, intact, *both)
    assert Deployment.open(root).verify()


def test_damage_is_refused_or_not_needed(
    target: Place, full: Place, files: list[str], answers: dict[str, Any]
) -> None:
    check_damage(target, full, files, answers, 40)


@pytest.mark.chaos
def test_damage_is_refused_or_not_needed_always(
    target: Place, full: Place, files: list[str], answers: dict[str, Any]
) -> None:
    check_damage(target, full, files, answers, 2000)


def check_commands(target: Place, full: Place, files: list[str], examples: int) -> None:
    """Commands on a damaged deployment: they refuse, and name the file, or do without it."""

    @settings(max_examples=examples)
    @given(two=pairs(files), damage=damages(), command=st.sampled_from(sorted(CALLS)))
    def check(two: list[str], damage: Done, command: str) -> None:
        (name, other), both = two, set(two)
        root, intact = target.deployment, full.deployment
        damage.do(root / name, root / other)
        bad = {n for n in both if content(root / n) != content(intact / n)}
        try:
            ended = target.call(*CALLS[command])
            if command == INSPECT and names.MANIFEST not in bad:
                found = json.loads(ended.out)["integrity"]
                assert {*found["missing"], *found["changed"]} == bad
                assert (ended.status, ended.err) == (3 if bad else 0, "")
            elif ended.status or names.MANIFEST in bad:
                said = ended.refused()
                assert any(n in said for n in bad), (bad, said)
            else:
                whole = [plan for plan in Deployment.open(root).plans if not needs(plan, bad)]
                assert set(target.look(whole)["broken"]) <= bad
        finally:
            target.remove()
            full.copy(target.root)

    check()


@pytest.mark.slow
def test_commands_refuse_or_do_without(target: Place, full: Place, files: list[str]) -> None:
    check_commands(target, full, files, 8)


@pytest.mark.chaos
def test_commands_refuse_or_do_without_always(target: Place, full: Place, files: list[str]) -> None:
    check_commands(target, full, files, 400)
