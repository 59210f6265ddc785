"""What doctor finds on machines that are not this one."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from parnet_deploy.builder.build import BuildOptions, build_to_deployment
from parnet_deploy.deployment import Deployment
from parnet_deploy.doctor import findings, verbs
from parnet_deploy.doctor.deployments import examine_deployments
from parnet_deploy.doctor.probe import Probe
from parnet_deploy.doctor.system import (
    GPU_LIBRARIES,
    LEAST_FILES,
    examine_devices,
    examine_libraries,
    examine_limits,
)
from parnet_deploy.doctor.verbs import NEEDS, OPTIONAL, examine_verbs, int8_text
from parnet_deploy.export.export_step import export_to_deployment
from parnet_deploy.export.fuse_step import fuse_to_deployment
from parnet_deploy.runtime.choose import read_plan

CHECKPOINT = Path(__file__).parents[2] / "examples/digits/digits.pth.tar"
PLAN = "onnxruntime-fp32-one-1threads"
LAPTOP = {"isa": ["avx", "avx2"], "cores_usable": 4}
ALL = {name for needs in NEEDS.values() for names, _ in needs for name in names}


def with_packages(monkeypatch: pytest.MonkeyPatch, packages: set[str]) -> None:
    monkeypatch.setattr(verbs, "installed", lambda name: "1.0" if name in packages else None)


def test_a_machine_that_only_runs_deployments(monkeypatch) -> None:
    with_packages(monkeypatch, {"onnxruntime", "pillow"})
    found = {finding.name: finding for finding in examine_verbs(LAPTOP, 0)}
    assert set(found) == set(NEEDS)
    assert found["run"].status == found["bench"].status == "ok"
    assert found["fuse"].status == "missing"
    assert found["fuse"].fix == "pip install 'parnet-deploy[export]'"
    assert "torch, onnx, onnxscript, safetensors not installed" in found["fuse"].detail
    assert found["serve"].fix == "pip install 'parnet-deploy[serve]'"
    assert found["serve --ray"].status == "absent", "few need it"
    assert found["serve --ray"].fix == "pip install 'parnet-deploy[ray,serve]'"


def test_any_engine_runs_deployments_and_one_proves_them(monkeypatch) -> None:
    with_packages(monkeypatch, {"openvino", "MNN", "pillow"})
    found = {finding.name: finding for finding in examine_verbs(LAPTOP, 0)}
    assert found["run"].status == "ok"
    assert "beside openvino, mnn" in found["bench"].detail
    with_packages(monkeypatch, {*verbs.EXTRAS["export"], "openvino"})
    found = {finding.name: finding for finding in examine_verbs(LAPTOP, 0)}
    assert found["build"].status == "missing", "proofs are computed on ONNX Runtime"
    with_packages(monkeypatch, {*verbs.EXTRAS["export"], "onnxruntime", "MNN"})
    found = {finding.name: finding for finding in examine_verbs(LAPTOP, 0)}
    assert "for the CPU; --backend auto also measures mnn; " in found["build"].detail


def test_an_engine_that_is_not_installed_is_not_probed(monkeypatch) -> None:
    here = {"onnxruntime", "mnn"}
    monkeypatch.setattr(findings, "is_installed", lambda name: name in {*here, "mixed", "fake"})
    monkeypatch.setattr(findings, "probe_backend", lambda name: Probe(f"asked {name}"))
    found = {each.name: each for each in findings._backends(SimpleNamespace(gpus=()))}
    assert (found["openvino"].status, found["openvino"].detail) == ("absent", "not installed")
    assert found["openvino"].fix == "pip install 'parnet-deploy[openvino]'"
    assert {name for name, each in found.items() if each.detail == f"asked {name}"} == {
        *here,
        "mixed",
        "fake",
    }
    monkeypatch.setattr(findings, "is_installed", lambda name: False)
    found = {each.name: each for each in findings._backends(SimpleNamespace(gpus=()))}
    assert found["onnxruntime"].status == "missing", "everything needs it"


def test_a_machine_with_nothing_says_every_extra_once(monkeypatch) -> None:
    with_packages(monkeypatch, set())
    found = {finding.name: finding for finding in examine_verbs(LAPTOP, 0)}
    assert found["calibrate"].fix == "pip install 'parnet-deploy[export,cpu,images]'"
    assert {f.status for f in found.values() if f.name not in OPTIONAL} == {"missing"}


def test_a_machine_with_gpus_says_so(monkeypatch) -> None:
    with_packages(monkeypatch, ALL - {"onnxruntime"})
    found = {finding.name: finding for finding in examine_verbs(LAPTOP, 2)}
    assert {finding.status for finding in found.values()} == {"ok"}
    assert "GPUs 0, 1" in found["build"].detail
    assert "2 GPUs or 4 cores" in found["serve"].detail
    assert "7-bit weights" in found["calibrate"].detail
    assert "beside ResNets, torch" in found["bench"].detail


@pytest.mark.parametrize(
    ("isa", "text"),
    [(["avx2", "avx_vnni"], "8-bit"), (["amx_int8"], "8-bit"), (["avx2"], "7-bit"), ([], "faster")],
)
def test_int8_by_instruction_set(isa: list[str], text: str) -> None:
    assert text in int8_text(isa)


def test_limits_that_serve_runs_into(tmp_path: Path) -> None:
    (few,) = examine_limits(tmp_path, files=1024)
    assert (few.name, few.status) == ("open files", "warning")
    assert f"ulimit -n {LEAST_FILES}" in (few.fix or "")
    (tmp_path / "dev/shm").mkdir(parents=True)
    many, shared = examine_limits(tmp_path, files=LEAST_FILES)
    assert (many.status, many.fix) == ("ok", None)
    assert "MiB free" in shared.detail


def test_scarce_shared_memory(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "dev/shm").mkdir(parents=True)
    usage = type("Usage", (), {"free": 64 << 20})
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    *_, shared = examine_limits(tmp_path, files=LEAST_FILES)
    assert shared.status == "warning"
    assert "--shm-size" in (shared.fix or "")


def test_device_files_that_may_not_be_opened(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "dev").mkdir()
    for name in ("nvidia0", "nvidiactl", "null"):
        (tmp_path / "dev" / name).touch()
    (tmp_path / "dev/nvidia-caps").mkdir()
    assert list(examine_devices(tmp_path)) == []
    monkeypatch.setattr("os.access", lambda path, mode: False)
    assert [found.name for found in examine_devices(tmp_path)] == ["nvidia0", "nvidiactl"]


def test_libraries_in_the_loader_s_own_words() -> None:
    def load(name: str) -> None:
        if name != "libnvinfer.so.10":
            raise OSError(f"{name}: cannot open shared object file")

    found = {finding.name: finding for finding in examine_libraries(load)}
    assert len(found) == len(GPU_LIBRARIES)
    assert found["libnvinfer.so.10"].status == "ok"
    assert found["libcuda.so.1"].status == "missing"
    assert found["libcuda.so.1"].detail == "libcuda.so.1: cannot open shared object file"
    assert found["libcudnn.so.9"].status == "absent", "a package may bring it"


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("doctor") / "engines"
    root.mkdir()
    fuse_to_deployment(CHECKPOINT, root / "digits")
    export_to_deployment(root / "digits")
    shutil.copytree(root / "digits", root / "unbuilt")
    build_to_deployment(root / "digits", BuildOptions(placement="one", threads=1))
    shutil.copytree(root / "digits", root / "damaged")
    next((root / "damaged/plans").rglob("all.onnx")).write_bytes(b"no")
    shutil.copytree(root / "digits", root / "edited")
    (root / "edited/deployment.json").write_text("{}")
    return root


def test_deployments_at_a_glance(engines: Path) -> None:
    found = {finding.name: finding for finding in examine_deployments(engines)}
    assert list(found) == ["damaged", "digits", "edited", "unbuilt"]
    assert found["digits"].status == "ok"
    assert found["unbuilt"].fix == "parnet-deploy build unbuilt"
    assert found["edited"].status == "warning"


def test_plans_that_are_passed_over_are_told(engines: Path, monkeypatch) -> None:
    plan = replace(read_plan(Deployment.open(engines / "digits"), PLAN).plan, backend="mnn")
    only = Path(shutil.copytree(engines / "digits", engines.parent / "several/digits"))
    with Deployment.edit(only) as txn:
        homes = dict.fromkeys(plan.engines, "openvino")
        mix = replace(plan, backend="mixed", backends=homes)
        txn.stage("plans/auto/build.json").write_text(json.dumps(mix.to_json()))
        txn.finish_step("build:auto", key="auto", plans={"auto": {"backend": "mixed"}})
    (found,) = examine_deployments(only.parent, unusable={"openvino"})
    assert found.status == "ok"
    assert "2 plans; auto: backend openvino cannot be loaded here; unsigned" in found.detail
    (found,) = examine_deployments(only.parent, unusable={"openvino", "onnxruntime"})
    assert found.status == "warning", "none is left"
    (found,) = examine_deployments(only.parent, deep=True, unusable={"openvino"})
    assert "runs here" in found.detail
    assert "auto: backend openvino cannot be loaded here" in found.detail


def test_deep_opens_them(engines: Path) -> None:
    found = {finding.name: finding for finding in examine_deployments(engines, deep=True)}
    assert "runs here" in found["digits"].detail
    assert next((engines / "digits/plans").iterdir()).name in found["digits"].detail
    assert found["damaged"].status == "warning"
    assert "all.onnx" in found["damaged"].detail


def test_no_directory_is_no_finding(tmp_path: Path) -> None:
    assert list(examine_deployments(tmp_path / "nowhere")) == []


def test_onnxruntime_gpu_is_onnxruntime(tmp_path: Path, monkeypatch) -> None:

    there = {"onnxruntime-gpu": "1.31.1", "uvicorn": "0.54.0"}
    monkeypatch.setattr(findings, "installed", there.get)
    found = [f for f in findings.examine(tmp_path) if f.group.startswith("packages")]
    by_name = {finding.name: finding for finding in found}
    assert by_name["onnxruntime-gpu"].status == "ok"
    assert "onnxruntime" not in by_name
    assert by_name["uvloop"].status == "absent", "serve does without it"
    assert by_name["httptools"].status == "missing"


def test_what_runs_just_now_is_told_and_not_warned_of() -> None:
    machine = {"cores_usable": 2, "cores_total": 2, "load_average": [9.5, 4.0, 1.0]}
    busy = findings._cores(machine)
    assert (busy.status, busy.fix) == ("ok", None)
    assert "load 9.5" in busy.detail
    fewer = findings._cores({**machine, "cores_total": 4})
    assert fewer.status == "warning"
    assert "taskset" in fewer.fix
