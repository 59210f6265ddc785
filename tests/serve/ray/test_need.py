"""What Ray is to set aside for a replica: counted from plans, never from this machine's GPUs."""

from __future__ import annotations

from pathlib import Path

import pytest

from parnet_deploy.deployment import Deployment, step_key
from parnet_deploy.errors import DeploymentError
from parnet_deploy.machine.cores import usable_cores
from parnet_deploy.placement import one, streams
from parnet_deploy.serve.ray.need import answer_digest, find_need
from parnet_deploy.serve.ray.options import ScaleOptions
from tests.runtime.runtime_toys import SPECS, fixed_size, make_plan
from tests.runtime.test_session import publish

SPEC = SPECS[3]
SIZE = fixed_size(SPEC)
PLANS = {
    "gpus": (make_plan(streams(SPEC, (5, 7, 5)), SIZE, 8, backend="tensorrt"), 1.0, "2026-01-05"),
    "cpu": (make_plan(one(SPEC), SIZE, 4, threads=3), 2.0, "2026-01-03"),
}


@pytest.fixture
def deployment(tmp_path: Path) -> Path:
    publish(tmp_path / "toy", PLANS)
    return tmp_path / "toy"


def test_gpus_are_those_of_the_best_plan_each_once(deployment: Path) -> None:
    need = find_need([deployment], ScaleOptions())
    (model,) = need.models
    assert (model.plan, model.gpus, model.max_batch) == ("gpus", 2, 8)
    assert (need.gpus, need.cpus, need.threads) == (2, 1, 1)


def test_without_gpus_it_is_the_best_plan_that_needs_none(deployment: Path) -> None:
    need = find_need([deployment], ScaleOptions(gpus=0))
    assert need.models[0].plan == "cpu"
    assert (need.gpus, need.cpus, need.threads) == (0, 3, 3)


def test_slots_have_cores_of_their_own(deployment: Path) -> None:
    assert find_need([deployment], ScaleOptions(gpus=0), slots=2).cpus == 6
    need = find_need([deployment], ScaleOptions(gpus=0, cpus=4), slots=2)
    assert (need.cpus, need.threads) == (4, 2)
    assert find_need([deployment], ScaleOptions(gpus=0), threads=1, slots=2).cpus == 2


def test_a_plan_for_every_core_gets_every_core(tmp_path: Path) -> None:
    publish(tmp_path / "toy", {"all": (make_plan(one(SPEC), SIZE, 4), None, "")})
    assert find_need([tmp_path / "toy"], ScaleOptions()).threads == usable_cores()


def test_models_share_the_gpus_of_their_replica(deployment: Path, tmp_path: Path) -> None:
    plan = make_plan(one(SPEC), SIZE, 16, backend="tensorrt")
    publish(tmp_path / "other", {"single": (plan, None, "")})
    need = find_need([deployment, tmp_path / "other"], ScaleOptions())
    assert [model.gpus for model in need.models] == [2, 1]
    assert (need.gpus, need.max_batch) == (2, 16)


def test_a_plan_that_needs_more_than_was_asked_for(deployment: Path) -> None:
    with pytest.raises(DeploymentError, match=r"gpus \(2 GPUs\), expected a plan for 1 GPUs"):
        find_need([deployment], ScaleOptions(gpus=1), backend="tensorrt")


def test_the_digest_is_of_what_answers_follow_from(deployment: Path) -> None:
    def digest(key: str) -> str:
        return answer_digest(Deployment.open(deployment), key)

    before = digest("cpu")
    assert before != digest("gpus")
    with Deployment.edit(deployment) as txn:
        txn.stage("reports/bench.json").write_text("{}")
        txn.finish_step("bench", key=step_key(a=1))
    assert digest("cpu") == before
    with Deployment.edit(deployment) as txn:
        txn.describe(labels=tuple("abcd"))
    assert digest("cpu") != before
