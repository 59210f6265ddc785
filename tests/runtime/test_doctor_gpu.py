"""What doctor says of GPUs: devices, packages, conflicts, and a fix for each."""

from __future__ import annotations

from importlib import metadata

import pytest

from parnet_deploy.doctor import findings as doctor
from parnet_deploy.doctor import probe, versions
from parnet_deploy.doctor.gpu import examine_gpus
from parnet_deploy.machine.gpus import read_gpus
from tests.runtime.driver_toys import ToyDriver, install

READY = {"tensorrt-cu13": "11.4.0", "cuda-bindings": "13.0.1", "onnxruntime-gpu": "1.31.1"}


def have(monkeypatch, packages: dict[str, str]) -> None:
    def version(name: str) -> str:
        if name not in packages:
            raise metadata.PackageNotFoundError(name)
        return packages[name]

    monkeypatch.setattr(versions.metadata, "version", version)


def found(monkeypatch, driver: ToyDriver | None, packages: dict[str, str]) -> dict:
    install(monkeypatch, driver)
    have(monkeypatch, packages)
    return {finding.name: finding for finding in examine_gpus(read_gpus())}


def test_all_is_well(monkeypatch):
    findings = found(monkeypatch, ToyDriver(2), READY)
    assert {finding.status for finding in findings.values()} == {"ok"}
    assert findings["gpu 1"].detail.startswith("NVIDIA Toy 3000, compute capability 9.0, 79.6 GiB")
    assert "CUDA 13.0 and older" in findings["driver"].detail
    assert findings["peer access"].detail == "all 2 directions"
    assert findings["tensorrt"].detail == "11.4.0 (tensorrt-cu13)"


def test_nothing_is_installed(monkeypatch):
    findings = found(monkeypatch, ToyDriver(1), {})
    missing = {name for name, finding in findings.items() if finding.status == "missing"}
    assert missing == {"tensorrt", "cuda-bindings", "onnxruntime-gpu"}
    assert all("pip install" in findings[name].fix for name in missing)
    assert "peer access" not in findings


def test_no_way_between_gpus(monkeypatch):
    finding = found(monkeypatch, ToyDriver(3, peers=False), READY)["peer access"]
    assert finding.status == "warning"
    assert finding.detail == "none for 0->1, 0->2, 1->0, 1->2, 2->0, 2->1"
    assert "nvidia-smi topo -m" in finding.fix


@pytest.mark.parametrize(("version", "status"), [("13.0.1", "warning"), ("12.9.2", "ok")])
def test_bindings_newer_than_the_driver(monkeypatch, version, status):
    packages = {**READY, "cuda-bindings": version}
    finding = found(monkeypatch, ToyDriver(1, cuda=12080), packages)["cuda-bindings"]
    assert finding.status == status
    if status == "warning":
        assert finding.detail == "13.0.1 is made for CUDA 13, the driver runs CUDA 12"
        assert "pip install 'cuda-bindings<13'" in finding.fix


def test_no_gpu(monkeypatch):
    findings = found(monkeypatch, None, {"onnxruntime": "1.32.0"})
    assert list(findings) == ["gpu"]
    assert findings["gpu"].status == "absent"
    assert "no NVIDIA driver" in findings["gpu"].detail


def test_gpu_backends(monkeypatch, tmp_path):
    """Without a GPU they are of no use; with one, the package has to be the right one."""
    monkeypatch.setattr(doctor, "probe_backend", probe._load)  # here, where the toys are
    install(monkeypatch, None)
    by_name = {f.name: f for f in doctor.examine(tmp_path) if f.group == "backends"}
    assert by_name["onnxruntime-cuda"].status == "absent"
    assert by_name["onnxruntime"].status == "ok"
    install(monkeypatch, ToyDriver(1))
    ort = pytest.importorskip("onnxruntime")
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CPUExecutionProvider"])
    by_name = {f.name: f for f in doctor.examine(tmp_path) if f.group == "backends"}
    assert by_name["onnxruntime-cuda"].status == "missing"
    assert "pip install onnxruntime-gpu" in by_name["onnxruntime-cuda"].fix
    providers = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(ort, "get_available_providers", lambda: providers)
    by_name = {f.name: f for f in doctor.examine(tmp_path) if f.group == "backends"}
    assert by_name["onnxruntime-cuda"].status == "ok"
