"""Signing: only what is whole, whole or not at all; and what is said of it to people."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from parnet_deploy.deployment import Deployment
from parnet_deploy.errors import DeploymentCorruptError, DeploymentError, DeploymentNotFoundError
from parnet_deploy.signing.sign import examine_signature, sign_deployment
from parnet_deploy.signing.trust import VARIABLE, open_trusted
from tests.signing.keys import Pair


def test_signing_changes_no_other_file(unsigned: Path, pair: Pair) -> None:
    before = {p: p.read_bytes() for p in unsigned.rglob("*") if p.is_file()}
    made = sign_deployment(unsigned, pair.key)
    after = {p: p.read_bytes() for p in unsigned.rglob("*") if p.is_file()}
    signature = after.pop(unsigned / "deployment.sig")
    assert before == after
    assert signature == made.render()
    assert made.key == pair.fingerprint
    assert sign_deployment(unsigned, pair.key) == made, "the same again"
    open_trusted(unsigned, [pair.public])


@pytest.mark.parametrize("damage", ["change", "remove"])
def test_what_is_damaged_is_not_signed(unsigned: Path, pair: Pair, damage: str) -> None:
    path = unsigned / "plans/only/all.onnx"
    if damage == "change":
        path.write_bytes(path.read_bytes() + b"x")
    else:
        path.unlink()
    with pytest.raises(DeploymentCorruptError, match=r"all\.onnx, which is missing or was changed"):
        sign_deployment(unsigned, pair.key)
    assert not (unsigned / "deployment.sig").exists()


def test_nothing_to_sign(tmp_path: Path, pair: Pair) -> None:
    with pytest.raises(DeploymentNotFoundError):
        sign_deployment(tmp_path / "none", pair.key)


def test_a_disk_that_refuses_leaves_the_old_signature(
    signed: Path, stranger: Pair, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    genuine = os.replace

    def refuse(source: object, target: object, **more: object) -> None:
        if str(target).endswith("deployment.sig"):
            raise OSError(28, os.strerror(28), str(target))
        genuine(source, target, **more)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", refuse)
        with pytest.raises(DeploymentError, match=r"No space left.+intact as it was before"):
            sign_deployment(signed, stranger.key)
    open_trusted(signed, [pair.public])
    assert not list(signed.glob(".staging-*"))


def test_what_is_said_of_it(
    signed: Path, pair: Pair, stranger: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = examine_signature(Deployment.open(signed))
    assert (found.state, found.key, found.required) == ("unchecked", pair.fingerprint, False)
    monkeypatch.setenv(VARIABLE, str(pair.public))
    found = examine_signature(Deployment.open(signed))
    assert (found.state, found.key, found.required) == ("trusted", pair.fingerprint, True)
    assert found.to_json()["detail"] == f"by {pair.fingerprint}"
    monkeypatch.setenv(VARIABLE, str(stranger.public))
    found = examine_signature(Deployment.open(signed))
    assert (found.state, found.key) == ("refused", pair.fingerprint)
    monkeypatch.setenv(VARIABLE, "")
    found = examine_signature(Deployment.open(signed))
    assert (found.state, found.required) == ("unchecked", True)
    assert "got none" in found.detail


def test_what_is_said_of_none_and_of_a_damaged_one(
    unsigned: Path, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = examine_signature(Deployment.open(unsigned))
    assert (found.state, found.key, found.required) == ("unsigned", None, False)
    monkeypatch.setenv(VARIABLE, str(pair.public))
    found = examine_signature(Deployment.open(unsigned))
    assert (found.state, found.key, found.required) == ("unsigned", None, True)
    (unsigned / "deployment.sig").write_text("{}")
    found = examine_signature(Deployment.open(unsigned))
    assert (found.state, found.key) == ("refused", None)
