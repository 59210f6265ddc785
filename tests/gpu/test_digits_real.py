"""A trained network on real images on a real GPU: every placement answers like the CPU did."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from parnet_deploy import Runtime
from parnet_deploy.builder.build import build_to_deployment
from parnet_deploy.builder.options import BuildOptions
from tests.gpu.prepare import ANSWERS, PREPARED

pytestmark = [pytest.mark.gpu, pytest.mark.tensorrt]

TOLERANCE = 1e-4  # float32 with TF32 off, of the largest logit


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    if not (PREPARED / ANSWERS).exists():
        text = "needs tests/gpu/prepared (run: make gpu-fixtures, where PyTorch is)"
        if os.environ.get("PARNET_REQUIRE_GPU") == "1":
            pytest.fail(text, pytrace=False)
        pytest.skip(text)
    return Path(shutil.copytree(PREPARED / "digits", tmp_path / "digits"))


@pytest.mark.parametrize("placement", ["one", "one-aux", "streams", "recompute"])
def test_the_evaluation_set(digits: Path, placement: str) -> None:
    options = BuildOptions(backend="tensorrt", placement=placement, gpus=(0,), max_batch=64)
    build_to_deployment(digits, options)
    with np.load(PREPARED / ANSWERS) as stored:
        images, expected = stored["images"], stored["logits"]
    with Runtime.open(digits) as runtime:
        assert runtime.describe()["backend"] == "tensorrt"
        single = np.concatenate([runtime(images[i : i + 1]) for i in range(len(images))])
        batched = np.concatenate([runtime(images[i : i + 64]) for i in range(0, len(images), 64)])
    for logits in (single, batched):
        assert np.abs(logits - expected).max() <= TOLERANCE * np.abs(expected).max()
        assert (logits.argmax(axis=1) == expected.argmax(axis=1)).all()
