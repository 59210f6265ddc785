"""A trained network on real images on a real GPU: every placement answers like the CPU did."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from parnet_deploy import Runtime
from parnet_deploy.builder.build import build_to_deployment
from parnet_deploy.builder.options import BuildOptions
from tests.gpu.prepare import ANSWERS, PREPARED

pytestmark = [pytest.mark.gpu, pytest.mark.tensorrt]

TOLERANCE = {"fp32": 1e-4, "fp16": 2e-2}  # of the largest logit; TF32 is off


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    """A copy of the prepared deployment."""
    if not (PREPARED / ANSWERS).exists():
        text = "needs tests/gpu/prepared (run: make gpu-fixtures, where PyTorch is)"
        if os.environ.get("PARNET_REQUIRE_GPU") == "1":
            pytest.fail(text, pytrace=False)
        pytest.skip(text)
    return Path(shutil.copytree(PREPARED / "digits", tmp_path / "digits"))


def answers(directory: Path, **options: object) -> tuple[dict[str, Any], list[np.ndarray]]:
    """Build, then run every image alone and in batches; the plan's report and both logits."""
    build = BuildOptions(backend="tensorrt", gpus=(0,), max_batch=64, **options)
    report = build_to_deployment(directory, build).report
    with np.load(PREPARED / ANSWERS) as stored:
        images = stored["images"]
    with Runtime.open(directory, plan=report["plan"]) as runtime:
        assert runtime.describe()["backend"] == "tensorrt"
        single = np.concatenate([runtime(images[i : i + 1]) for i in range(len(images))])
        batched = np.concatenate([runtime(images[i : i + 64]) for i in range(0, len(images), 64)])
    return report, [single, batched]


@pytest.fixture
def expected() -> np.ndarray:
    with np.load(PREPARED / ANSWERS) as stored:
        return stored["logits"]


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("placement", ["one", "one-aux", "streams", "recompute"])
def test_the_evaluation_set(
    digits: Path, expected: np.ndarray, placement: str, precision: str
) -> None:
    report, found = answers(digits, placement=placement, precision=precision)
    for logits in found:
        assert np.abs(logits - expected).max() <= TOLERANCE[precision] * np.abs(expected).max()
        assert (logits.argmax(axis=1) == expected.argmax(axis=1)).all()
    if precision == "fp16":
        for record in report["made"]["engines"].values():
            assert record["precision"] == "fp16"


@pytest.mark.parametrize("placement", ["one", "streams"])
def test_int8_keeps_the_accuracy_and_runs_in_int8(
    digits: Path, expected: np.ndarray, placement: str
) -> None:
    report, found = answers(digits, placement=placement, precision="int8")
    for logits in found:
        same = (logits.argmax(axis=1) == expected.argmax(axis=1)).mean()
        assert same >= 0.97
    layers = [record["layers"] for record in report["made"]["engines"].values()]
    assert any("INT8" in str(found).upper() for found in layers), layers
