"""Arms beside a real deployment, each in its process. How long anything takes is not tested."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from parnet_deploy.bench.arms import plans, resnet_arm, session
from parnet_deploy.bench.arms.table import arm_spec
from parnet_deploy.bench.result import OURS
from parnet_deploy.builder.build import BuildOptions, build_to_deployment
from parnet_deploy.compare import ENGINE_TOLERANCE
from parnet_deploy.contest.arm import ArmSpec
from parnet_deploy.contest.contest import Contest
from parnet_deploy.deployment import Deployment
from parnet_deploy.errors import (
    BackendError,
    CheckFailedError,
    DeploymentError,
    DeviceUnavailableError,
)
from parnet_deploy.export.export_step import export_to_deployment
from parnet_deploy.export.fuse_step import fuse_to_deployment
from parnet_deploy.machine.cores import usable_cores
from parnet_deploy.runtime.choose import read_plan
from parnet_deploy.steps import read_reference

CHECKPOINT = Path(__file__).parents[3] / "examples/digits/digits.pth.tar"
PLAN = "onnxruntime-fp32-one-1threads"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("built") / "digits"
    fuse_to_deployment(CHECKPOINT, directory)
    export_to_deployment(directory)
    build_to_deployment(directory, BuildOptions(placement="one", threads=1))
    return directory


def spec(name: str, directory: Path) -> ArmSpec:
    return arm_spec(name, directory, plan=PLAN, batch=2, size=(32, 32), classes=10, threads=1)


def contest(built: Path, *specs: ArmSpec) -> Contest:
    reference = read_reference(Deployment.open(built))
    image, logits = (np.concatenate([values] * 2) for values in (reference.image, reference.logits))
    return Contest([spec(OURS, built), *specs], image, logits)


def test_arms_are_right_and_say_what_they_are(built, tmp_path) -> None:
    other = shutil.copytree(built, tmp_path / "other")
    names = ["torch", "onnxruntime", "resnet18", str(other)]
    with contest(built, *(spec(name, built) for name in names)) as running:
        running.check()
        samples = running.rounds("saturated", 2)
    assert running.left_out == {}
    assert all(samples[name] for name in (OURS, *names))
    for name in names:
        arm = running.entrants[name]
        assert arm.check is not None
        assert 0 <= arm.check["error"] <= arm.check["limit"] == ENGINE_TOLERANCE
    found = running.entrants
    assert found["torch"].facts["threads"] == 1
    assert "1 threads" in found["torch"].note
    assert found["onnxruntime"].model_bytes > 0
    assert found["resnet18"].parameters == 11_689_512 - 990 * 513
    assert "optimisations off" in found["resnet18"].check["what"]
    assert found[str(other)].check["what"] == "its own reference"
    assert found[str(other)].macs == sum(Deployment.open(other).spec.macs(32, 32).values())


def test_an_arm_whose_weights_were_moved_is_caught(built) -> None:
    wrong = replace(
        spec("torch", built), name="wrong", entry="tests.bench.arms.toy_models:open_perturbed"
    )
    with contest(built, wrong) as running, pytest.raises(CheckFailedError, match="arm wrong"):
        running.check()


def test_a_resnet_that_answers_otherwise_than_its_graph_is_caught(built, monkeypatch) -> None:
    monkeypatch.setattr(resnet_arm, "caller", lambda session: lambda image: np.ones((2, 10)))
    with pytest.raises(CheckFailedError, match="resnet18 and the same graph"):
        resnet_arm.open_resnet(**spec("resnet18", built).options)


def test_a_resnet_is_not_compared_across_precisions(built, monkeypatch) -> None:
    lower = replace(read_plan(Deployment.open(built), PLAN).plan, precision="int8")
    files = replace(read_plan(Deployment.open(built), PLAN), plan=lower)
    monkeypatch.setattr(resnet_arm, "read_plan", lambda *args: files)
    with pytest.raises(BackendError, match="the plan is in int8 and resnet18 only in fp32"):
        resnet_arm.open_resnet(**spec("resnet18", built).options)


def test_without_torch_a_resnet_runs(built) -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from parnet_deploy.bench.arms.resnet_arm import open_resnet\n"
        f"arm = open_resnet(**{dict(spec('resnet18', built).options)!r})\n"
        "assert arm.self_check.error <= arm.self_check.limit\n"
        "loaded = [name for name in ('onnx', 'safetensors') if name in sys.modules]\n"
        "assert not loaded, loaded\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)


def test_a_gpu_plan_is_never_compared_with_a_cpu(built) -> None:
    plan = read_plan(Deployment.open(built), PLAN).plan
    session.check_cpu(plan, "it")
    tensorrt = replace(plan, backend="tensorrt")
    with pytest.raises(DeviceUnavailableError, match="would compare devices"):
        session.check_cpu(tensorrt, "it")
    with pytest.raises(DeviceUnavailableError, match="--backend onnxruntime-cuda"):
        session.open_beside(b"", tensorrt, threads=1)


def test_on_cuda_the_session_has_a_stream_of_its_own(built, monkeypatch) -> None:
    from parnet_deploy.runtime.onnxruntime import cuda_session

    asked = {}
    monkeypatch.setattr(cuda_session, "check_provider", lambda: None)
    monkeypatch.setattr(cuda_session, "open_session", lambda model, options: asked.update(options))
    plan = replace(read_plan(Deployment.open(built), PLAN).plan, backend="onnxruntime-cuda")
    session.open_beside(b"model", plan, threads=1)
    assert asked["device_id"] == "0"
    assert asked["use_tf32"] == "0"
    assert not [name for name in asked if "user_compute_stream" in name]


def test_other_plans_of_the_deployment_are_arms(built, tmp_path) -> None:
    directory = Path(shutil.copytree(built, tmp_path / "digits"))
    key = build_to_deployment(directory, BuildOptions(placement="streams")).report["plan"]
    gone = "openvino-fp32-gone"
    with contest(directory, *(spec(name, directory) for name in (key, gone, PLAN, "mnn"))) as arms:
        arms.check()
    arm = arms.entrants[key]
    assert f"plan {key}, placement streams" in arm.note
    assert arm.facts["facts"]["cores"] == usable_cores(), "its own threads, not the measured plan's"
    assert arm.check["what"] == "the reference"
    assert set(arms.left_out) == {gone, PLAN, "mnn"}
    assert f"expected plan {gone}" in arms.left_out[gone]
    assert "is the plan that is measured" in arms.left_out[PLAN]
    assert arms.left_out["mnn"] == (
        "no plan of the deployment runs on mnn. Run: parnet-deploy build digits --backend mnn"
    )


def test_the_newest_plan_of_a_backend(built, tmp_path) -> None:
    directory = Path(shutil.copytree(built, tmp_path / "digits"))
    keys = [
        build_to_deployment(
            directory, BuildOptions(backend="fake", placement=placement, gpus=(0,))
        ).report["plan"]
        for placement in ("streams", "one")
    ]
    asked = {"directory": str(directory), "backend": "fake", "batch": 1, "threads": 1}
    arm = plans.open_newest(plan=PLAN, **asked)
    assert arm.facts["plan"] == keys[1]
    arm.close()
    with pytest.raises(DeploymentError, match="is the plan that is measured"):
        plans.open_newest(plan=keys[1], **asked)
