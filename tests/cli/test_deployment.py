"""The verb ``deployment``: keys, signing and checking, as one types it."""

from __future__ import annotations

import json
import os

import pytest

pytest.importorskip("cryptography")

from parnet_deploy.signing.keys import PASSPHRASE
from parnet_deploy.signing.trust import VARIABLE


@pytest.fixture(autouse=True)
def _nobody_is_trusted(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.delenv(PASSPHRASE, raising=False)


@pytest.fixture
def keys(invoke, workplace):
    """A pair in the workplace, and what the command said."""
    result = invoke("deployment", "keygen", "--key", "k", "--public", "k.pem", "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def test_the_whole_way(invoke, built, keys, workplace, images, monkeypatch):
    assert keys == {"private": "k", "public": "k.pem", "key": keys["key"]}
    assert (workplace / "k").stat().st_mode & 0o077 == 0
    result = invoke("deployment", "verify", "--trusted-key", "k.pem", "--json")
    assert result.exit_code == 3
    assert json.loads(result.stdout)["key"] is None
    result = invoke("deployment", "sign", "--key", "k", "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["key"] == keys["key"]
    result = invoke("deployment", "verify", "--trusted-key", "k.pem", "--json")
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    assert (found["trusted"], found["key"]) == (True, keys["key"])
    monkeypatch.setenv(VARIABLE, "k.pem")
    assert invoke("run", images).exit_code == 0
    assert invoke("verify").exit_code == 0
    assert invoke("deployment", "verify").exit_code == 0, "a report came, the signature stayed"


@pytest.mark.parametrize(
    "words",
    [
        ["run", "images"],
        ["verify"],
        ["verify", "--bisect"],
        ["bench"],
        ["serve", "--port", "0"],
        ["export-triton", "--to", "models"],
    ],
)
def test_no_verb_runs_what_is_unsigned(invoke, built, keys, images, monkeypatch, words):
    monkeypatch.setenv(VARIABLE, "k.pem")
    result = invoke(*words)
    assert result.exit_code == 1
    assert "got no signature, expected one by" in result.stderr
    assert result.stdout == ""


def test_a_changed_file_is_no_matter_of_the_signature(invoke, built, keys):
    invoke("deployment", "sign", "--key", "k")
    (built / "fused.safetensors").write_bytes(b"x")
    result = invoke("deployment", "verify", "--trusted-key", "k.pem", "--json")
    found = json.loads(result.stdout)
    assert result.exit_code == 3
    assert found["key"] == keys["key"]
    assert found["detail"] == "missing or changed: fused.safetensors"
    assert invoke("deployment", "sign", "--key", "k").exit_code == 1


def test_inspect_and_doctor_show_it(invoke, built, keys, monkeypatch):
    def state():
        found = json.loads(invoke("inspect", "--json").stdout)["signature"]
        return found["state"], found["key"]

    def finding():
        found = json.loads(invoke("doctor", "--json").stdout)["findings"]
        return next(f for f in found if f["group"] == "deployments")

    assert state() == ("unsigned", None)
    assert "unsigned" in invoke("inspect").stdout
    assert finding()["status"] == "ok"
    assert "unsigned" in finding()["detail"]
    monkeypatch.setenv(VARIABLE, "k.pem")
    assert finding()["status"] == "warning"
    assert finding()["fix"] == "parnet-deploy deployment sign digits --key PRIVATE.pem"
    invoke("deployment", "sign", "--key", "k")
    assert state() == ("trusted", keys["key"])
    assert f"trusted: by {keys['key']}" in invoke("inspect").stdout
    assert finding()["status"] == "ok"
    assert f"signed by {keys['key']}" in finding()["detail"]


def test_passphrase(invoke, built, monkeypatch):
    words = ["deployment", "keygen", "--key", "k", "--public", "k.pem", "--encrypt"]
    result = invoke(*words)
    assert result.exit_code == 2, "no terminal to ask, and no variable"
    assert PASSPHRASE in result.stderr
    monkeypatch.setenv(PASSPHRASE, "correct horse")
    assert invoke(*words).exit_code == 0
    assert invoke("deployment", "sign", "--key", "k").exit_code == 0
    monkeypatch.setenv(PASSPHRASE, "battery staple")
    result = invoke("deployment", "sign", "--key", "k")
    assert result.exit_code == 1
    assert "another passphrase" in result.stderr
    assert "battery" not in result.stderr


def test_a_terminal_is_asked(invoke, built, monkeypatch):
    asked = []

    def prompt(text, **how):
        assert how["hide_input"]
        assert how["err"], "stdout is for the result"
        asked.append(how["confirmation_prompt"])
        return "correct horse"

    monkeypatch.setattr("click.prompt", prompt)
    monkeypatch.setattr("parnet_deploy.cli.deployment.has_terminal", lambda: True)
    words = ["deployment", "keygen", "--key", "k", "--public", "k.pem", "--encrypt"]
    assert invoke(*words).exit_code == 0
    assert invoke("deployment", "sign", "--key", "k").exit_code == 0
    assert asked == [True, False]


def test_nobody_named_is_usage(invoke, built):
    result = invoke("deployment", "verify")
    assert result.exit_code == 2
    assert "--trusted-key" in result.stderr


def test_a_key_that_others_can_read_signs_nothing(invoke, built, keys):
    os.chmod("k", 0o644)
    result = invoke("deployment", "sign", "--key", "k")
    assert result.exit_code == 1
    assert "chmod 600 k" in result.stderr
    assert not (built / "deployment.sig").exists()
