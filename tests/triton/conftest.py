"""A small deployment with a plan of one engine, labels and preprocessing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from parnet_deploy.builder.build import BuildOptions, build_to_deployment
from parnet_deploy.deployment import Deployment, step_key
from parnet_deploy.placement import one
from parnet_deploy.plan import Plan
from parnet_deploy.preprocess import Preprocessing
from tests.runtime.runtime_toys import SPECS, fixed_size
from tests.toy_deployments import export_toy

SPEC = SPECS[2]
SIZE = fixed_size(SPEC)
LABELS = ("cat", "dog", "a bird")


@pytest.fixture(scope="session")
def toy_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built once: one engine on the CPU, batches up to 4."""
    directory = export_toy(tmp_path_factory.mktemp("toy") / "toy", SPEC, SIZE)
    height, width = SIZE.high
    with Deployment.edit(directory) as txn:
        about = Preprocessing(height=height, width=width, crop_fraction=1.0).to_json()
        txn.describe(preprocessing=about, labels=LABELS)
    build_to_deployment(
        directory, BuildOptions(backend="onnxruntime", placement="one", max_batch=4, threads=1)
    )
    return directory


@pytest.fixture
def toy(toy_once: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(toy_once, tmp_path / "engines" / "toy"))


def add_tensorrt(directory: Path, *, dtype: str = "float32", device: int = 0) -> Path:
    """A plan as a build on a GPU leaves it; the engine itself is no engine."""
    tensors = [{"name": name, "dtype": dtype} for name in ("image", "logits")]
    record = {
        "tensorrt": "10.16.1.11",
        "device": {"name": "NVIDIA H100", "compute_capability": "9.0"},
        "profiles": [{}, {}],
        "tensors": tensors,
    }
    plan = Plan(
        backend="tensorrt",
        placement=one(SPEC, device),
        input_size=SIZE,
        max_batch=8,
        engines={"all": "all.plan"},
        made={"engines": {"all": record}},
    )
    with Deployment.edit(directory) as txn:
        txn.stage("plans/trt/build.json").write_text(json.dumps(plan.to_json()))
        txn.stage("plans/trt/all.plan").write_bytes(b"an engine")
        about = {"backend": "tensorrt", "built": "2026-01-01"}
        txn.finish_step("build:trt", key=step_key(toy=1), plans={"trt": about})
    return directory


def add_plan(directory: Path, key: str, backend: str) -> None:
    """A plan as a build for another engine of the CPU leaves it; a mix has its engine on openvino.

    The engine itself is no engine.
    """
    plan = Plan(
        backend=backend,
        backends={"all": "openvino"} if backend == "mixed" else {},
        placement=one(SPEC),
        input_size=SIZE,
        max_batch=4,
        engines={"all": f"all.{backend}"},
    )
    with Deployment.edit(directory) as txn:
        txn.stage(f"plans/{key}/build.json").write_text(json.dumps(plan.to_json()))
        txn.stage(f"plans/{key}/all.{backend}").write_bytes(b"an engine")
        about = {"backend": backend, "built": "2026-01-01"}
        txn.finish_step(f"build:{key}", key=step_key(toy=key), plans={key: about})
