"""A replica's service: its plans on the GPUs that Ray shows it, and only as they should be."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from parnet_deploy.errors import DeploymentError
from parnet_deploy.placement import streams
from parnet_deploy.serve.ray.need import find_need
from parnet_deploy.serve.ray.open import open_service
from parnet_deploy.serve.ray.options import ScaleOptions
from parnet_deploy.serve.ray.settings import ModelSettings, ReplicaSettings
from tests.runtime.runtime_toys import SPECS, fixed_size, make_plan
from tests.runtime.test_session import publish

SPEC = SPECS[3]


@pytest.fixture
def model(tmp_path: Path) -> ModelSettings:
    """A plan that was built on GPUs 5 and 7."""
    plan = make_plan(streams(SPEC, (7, 5, 7)), fixed_size(SPEC), 4, backend="fake")
    publish(tmp_path / "toy", {"two": (plan, None, "")})
    (found,) = find_need([tmp_path / "toy"], ScaleOptions()).models
    return ModelSettings(path=str(found.path), plan=found.plan, digest=found.digest)


def test_devices_are_those_that_ray_shows_it(model: ModelSettings) -> None:
    async def devices() -> set[int]:
        async with open_service(ReplicaSettings(models=(model,))) as service:
            placement = service.model_card("toy")["running"]["placement"]
            return {segment["device"] for segment in placement["segments"]}

    assert asyncio.run(devices()) == {0, 1}


def test_another_copy_is_refused(model: ModelSettings) -> None:
    wrong = ModelSettings(path=model.path, plan=model.plan, digest="0" * 64)
    with pytest.raises(DeploymentError, match=f"got digest {model.digest}, expected 0000"):
        open_service(ReplicaSettings(models=(wrong,)))


def test_the_limits_are_passed_on(model: ModelSettings) -> None:
    limits = {"max_queue": 3, "max_delay_ms": 2.0, "deadline_ms": 500.0, "max_image_pixels": 7}
    settings = ReplicaSettings(models=(model,), **limits)
    options = open_service(settings).options
    assert (options.max_queue, options.max_delay_ms, options.deadline_s) == (3, 2.0, 0.5)
    assert options.max_image_pixels == 7
