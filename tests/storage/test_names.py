"""Names: what a manifest, a journal or a plan may call a file; nothing else gets through."""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path, PureWindowsPath

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from parnet_deploy.deployment import Deployment
from parnet_deploy.errors import DeploymentCorruptError, DeploymentError
from parnet_deploy.runtime.choose import read_plan
from parnet_deploy.storage import names
from parnet_deploy.storage.document import seal
from tests.serve.service_toys import publish
from tests.storage.states import OLD, write_state

DEVICES = ["CON", "prn", "Aux", "NUL", "com1", "LPT9", "nul.txt", "con.tar.gz"]
WAYS_OUT = ["..", "../x", "a/../../x", "/x", "//x", "~", "~/x", "C:x", "C:/x", "\\x", "a\\..\\x"]
ODD = [
    "", ".", "./x", "x/", "a//b", "a/./b", " x", "x ", "x.", "x\n", "x\0", "\0", "a\0/b", "x\r",
    "\N{ONE DOT LEADER}\N{ONE DOT LEADER}/x", "a\N{FRACTION SLASH}b", "a\N{DIVISION SLASH}b",
    "\N{FULLWIDTH FULL STOP}\N{FULLWIDTH FULL STOP}/x", "x\N{RIGHT-TO-LEFT OVERRIDE}gpj",
    "caf\N{LATIN SMALL LETTER E WITH ACUTE}", "cafe\N{COMBINING ACUTE ACCENT}", "-x", "x:y", "x*",
    "x?", "x|y", '"x"', "$x", "`x`", "%2e%2e/x", "a" * 201, "a/" * 100 + "b",
    "deployment.json", "DEPLOYMENT.JSON", "deployment.sig", "Deployment.Sig",
    ".journal.json", ".lock", ".lock-holder", ".staging-0123456789abcdef/x", ".x",
]  # fmt: skip
HOSTILE = [*DEVICES, *(f"plans/{name}" for name in DEVICES), *WAYS_OUT, *ODD]

pieces = st.sampled_from(
    [
        "..",
        ".",
        "/",
        "\\",
        "a",
        "A",
        "onnx",
        "con",
        ":",
        " ",
        "\0",
        "\n",
        "~",
        "-",
        "\u00e9",
        "\u2024",
        "\uff0e",
    ]
)
any_names = st.one_of(
    st.text(max_size=40),
    st.lists(pieces, max_size=8).map("".join),
    st.from_regex(names._COMPONENT, fullmatch=True),
)


@pytest.mark.parametrize("name", HOSTILE, ids=ascii)
def test_no_artifact_has_such_a_name(name: str) -> None:
    assert names.artifact_problem(name)


@given(name=any_names)
def test_what_is_accepted_is_one_file_inside_on_every_system(name: str) -> None:
    if names.artifact_problem(name) is not None:
        return
    assert re.fullmatch(r"[\x21-\x7e]{1,200}", name)
    assert not {*'\\:*?"<>|'} & set(name)
    assert os.path.normpath(name) == name
    windows = PureWindowsPath(name)
    assert not windows.is_absolute()
    assert not windows.drive
    assert ".." not in windows.parts
    assert not getattr(os.path, "isreserved", lambda _: False)(name)  # from Python 3.13, on Windows
    for part in windows.parts:
        assert not part.startswith(".")
        assert not part.endswith((".", " "))
        assert part.partition(".")[0].lower() not in {"con", "prn", "aux", "nul", "com1", "lpt1"}


@given(name=any_names)
def test_a_plan_key_is_one_component(name: str) -> None:
    if names.is_plan_key(name):
        assert "/" not in name
        assert names.artifact_problem(f"plans/{name}/x") is None or len(name) > 190


@given(found=st.lists(st.from_regex(r"[aAbB]{1,2}(/[aAbB]{1,2}){0,2}", fullmatch=True), max_size=6))
def test_two_names_that_are_one_place_on_some_disk_clash(found: list[str]) -> None:
    unique = set(found)
    folded = {name.casefold() for name in unique}
    same = len(folded) < len(unique)
    inside = any(a != b and b.startswith(f"{a}/") for a in folded for b in folded)
    assert bool(names.clash(unique)) == (same or inside)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A deployment, and beside it files that nobody may reach from inside."""
    place = tmp_path_factory.mktemp("names")
    write_state(place / "model", OLD)
    for name in ("x", "outside", "deployment.json"):
        (place / name).write_text("not to be touched")
    return place


def everything(place: Path) -> dict[str, bytes]:
    """All files and their content, but for the lock."""
    return {
        path.relative_to(place).as_posix(): path.read_bytes()
        for path in sorted(place.rglob("*"))
        if path.is_file() and not path.name.startswith(".lock")
    }


@given(name=st.one_of(any_names, st.sampled_from(HOSTILE)))
def test_a_manifest_leads_nowhere_else(home: Path, name: str) -> None:
    """Sealed again, as who can write the directory can: refused, or a file that is not there."""
    path = home / "model/deployment.json"
    intact = path.read_bytes()
    data = json.loads(intact)
    del data["sha256"]
    data["artifacts"] = {name: {"sha256": "0" * 64, "bytes": 17, "step": "fuse"}}
    data["steps"]["fuse"]["files"] = [name]
    before = everything(home)
    try:
        path.write_bytes(seal(data))
        problem = names.artifact_problem(name)
        if problem is not None:
            with pytest.raises(DeploymentCorruptError, match="artifact"):
                Deployment.open(home / "model")
        else:
            with pytest.raises(DeploymentError):
                Deployment.open(home / "model").read_bytes(name)
    finally:
        path.write_bytes(intact)
    assert everything(home) == before


@given(
    name=st.one_of(any_names, st.sampled_from(HOSTILE)),
    where=st.sampled_from(["remove", "place", "staging"]),
)
@example(name=names.SIGNATURE, where="place")
@example(name="../outside", where="place")
@example(name="../outside", where="remove")
@example(name="../x", where="staging")
def test_a_journal_leads_nowhere_else(home: Path, name: str, where: str) -> None:
    """A journal is completed by whoever opens the deployment: it must not move or remove others."""
    hostile = names.artifact_problem(name) is not None
    if not hostile or (where == "remove" and name == names.SIGNATURE):
        return
    journal = {"staging": ".staging-0123456789abcdef", "remove": [], "place": []}
    journal[where] = name if where == "staging" else [name]
    if where == "staging" and names.is_staging(name):
        return
    path = home / "model" / names.JOURNAL
    before = everything(home)
    try:
        path.write_bytes(seal({"schema_version": 1, **journal}))
        with pytest.raises(DeploymentCorruptError, match="not a journal of this package"):
            Deployment.open(home / "model")
    finally:
        path.unlink()
    assert everything(home) == before


@given(name=st.one_of(any_names, st.sampled_from(HOSTILE)))
def test_nothing_is_staged_under_another_name(home: Path, name: str) -> None:
    if names.artifact_problem(name) is None:
        return
    before = everything(home)
    with (
        pytest.raises(DeploymentError, match="Rename it"),
        Deployment.edit(home / "model") as txn,
    ):
        txn.stage(name)
    assert everything(home) == before


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A deployment with a plan, and beside it files that nobody may reach from inside."""
    place = tmp_path_factory.mktemp("planned")
    publish(place / "model")
    for folder in (place, place / "model", place / "model/plans"):
        (folder / "x").write_text("not to be read")
    return place


@given(name=st.one_of(any_names, st.sampled_from([*HOSTILE, "../x", "../../x", "build.json"])))
def test_a_plan_leads_nowhere_else(planned: Path, name: str) -> None:
    """``build.json`` with a hash put right: its engine is a file of this plan, or refused."""
    root = planned / "model"
    manifest, document = root / "deployment.json", root / "plans/only/build.json"
    kept = {path: path.read_bytes() for path in (manifest, document)}
    try:
        plan = {**json.loads(kept[document]), "engines": {"all": name}}
        document.write_text(json.dumps(plan))
        about = json.loads(kept[manifest])
        del about["sha256"]
        record = about["artifacts"]["plans/only/build.json"]
        record["bytes"] = len(document.read_bytes())
        record["sha256"] = hashlib.sha256(document.read_bytes()).hexdigest()
        manifest.write_bytes(seal(about))
        found = Deployment.open(root)
        own = {path.removeprefix("plans/only/") for path in found.artifacts}
        if name in own:
            read_plan(found, "only").engines["all"].read_bytes()
        else:
            with pytest.raises(DeploymentError):
                read_plan(found, "only").engines["all"].read_bytes()
    finally:
        for path, content in kept.items():
            path.write_bytes(content)
