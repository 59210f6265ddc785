"""What a replica is told survives Ray; a file that was edited is held against what it may be."""

from __future__ import annotations

import json

import pytest

from parnet_deploy.errors import SpecError
from parnet_deploy.serve.ray.settings import ModelSettings, ReplicaSettings

SETTINGS = ReplicaSettings(
    models=(ModelSettings(path="/models/toy", plan="cpu", digest="0" * 64),),
    slots=2,
    max_delay_ms=1.5,
    token_file="/etc/token",
    need_token=True,
)


def test_json_and_back() -> None:
    assert ReplicaSettings.from_json(json.loads(json.dumps(SETTINGS.to_json()))) == SETTINGS


def test_what_has_a_default_may_be_left_out() -> None:
    found = ReplicaSettings.from_json({"models": [{"path": "toy", "plan": "cpu"}]})
    assert found.models == (ModelSettings(path="toy", plan="cpu"),)
    assert found.max_queue == ReplicaSettings(models=()).max_queue


@pytest.mark.parametrize(
    "change",
    [
        {"models": []},
        {"models": None},
        {"models": [{"path": "toy"}]},
        {"models": [{"path": 3, "plan": "cpu"}]},
        {"slots": 0},
        {"threads": 1.5},
        {"max_queue": True},
        {"deadline_ms": -1},
        {"max_delay_ms": "1"},
        {"deadline_ms": float("nan")},
        {"token_file": 7},
        {"unknown": 1},
    ],
)
def test_what_cannot_be(change) -> None:
    with pytest.raises(SpecError, match=r"^replica settings: got "):
        ReplicaSettings.from_json({**SETTINGS.to_json(), **change})


def test_no_token_in_it() -> None:
    assert "token_file" in SETTINGS.to_json()
    assert not {"token", "secret"} & set(SETTINGS.to_json())
