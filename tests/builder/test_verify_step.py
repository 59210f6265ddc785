from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from parnet_deploy.builder import verify_step
from parnet_deploy.builder.build import BuildOptions, build_to_deployment
from parnet_deploy.builder.verify_step import verify_to_deployment
from parnet_deploy.deployment import Deployment
from parnet_deploy.errors import CheckFailedError, DeploymentError
from parnet_deploy.export.trained import training_form

IMAGES = np.random.default_rng(3).standard_normal((5, 3, 32, 32), dtype=np.float32)


@pytest.fixture
def built(exported: Path) -> Path:
    build_to_deployment(exported, BuildOptions(placement="streams"))
    build_to_deployment(exported, BuildOptions(backend="fake", gpus=(0, 0, 1)))
    return exported


def trained(directory: Path):
    model = training_form(Deployment.open(directory))
    assert model is not None

    def run(images: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return model(torch.from_numpy(images)).numpy()

    return run


def test_every_plan_is_held_against_the_training_form(built) -> None:
    report = verify_to_deployment(built, images=IMAGES, trained=trained(built)).report
    assert set(report["plans"]) == {"onnxruntime-fp32-streams", "fake-fp32-auto-gpus0+0+1"}
    for checks in report["plans"].values():
        assert checks[-1]["what"] == "5 images against the training form"
        assert checks[-1]["top1_equal"] == 1
        assert all(check["passed"] for check in checks)
    assert "reports/verify.json" in Deployment.open(built).artifacts


def test_a_network_that_answers_otherwise_is_caught_and_nothing_is_published(built) -> None:
    with pytest.raises(CheckFailedError, match="5 images against the training form: error"):
        verify_to_deployment(built, images=IMAGES, trained=lambda x: trained(built)(x) + 1)
    assert "verify" not in Deployment.open(built).steps


def test_another_top1_is_caught_even_within_the_tolerance(built, monkeypatch) -> None:
    monkeypatch.setattr(verify_step, "ENGINE_TOLERANCE", 1e9)
    with pytest.raises(CheckFailedError, match="top-1 differs"):
        verify_to_deployment(built, images=IMAGES, trained=lambda x: -trained(built)(x))


def test_a_damaged_file_is_named(built) -> None:
    path = built / "plans/onnxruntime-fp32-streams/head.onnx"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DeploymentError, match=r"plans/onnxruntime-fp32-streams/head\.onnx"):
        verify_to_deployment(built)


def test_a_plan_that_is_not_there(built) -> None:
    with pytest.raises(DeploymentError, match="build"):
        verify_to_deployment(built, plans=["nonsense"])
