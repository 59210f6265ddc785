"""Replicas in Ray's words."""

from __future__ import annotations

import pytest

from parnet_deploy.errors import SpecError
from parnet_deploy.serve.ray.options import ScaleOptions


def test_a_fixed_number() -> None:
    assert ScaleOptions(replicas=3).to_ray() == {"num_replicas": 3}


def test_as_many_as_the_load_wants() -> None:
    scale = ScaleOptions(replicas=2, max_replicas=5, target_ongoing=4.0)
    found = scale.to_ray()["autoscaling_config"]
    assert found == {
        "min_replicas": 2,
        "initial_replicas": 2,
        "max_replicas": 5,
        "target_ongoing_requests": 4.0,
    }


@pytest.mark.parametrize(
    "wrong",
    [
        {"replicas": 0},
        {"replicas": 3, "max_replicas": 2},
        {"target_ongoing": 0.0},
        {"target_ongoing": float("nan")},
        {"cpus": 0},
        {"gpus": -1},
        {"replicas": True},
    ],
)
def test_what_cannot_be(wrong) -> None:
    with pytest.raises(SpecError, match=next(reversed(wrong))):
        ScaleOptions(**wrong)
