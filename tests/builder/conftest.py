"""An exported deployment of the shipped digits network, made once and copied for each test."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from parnet_deploy.export.export_step import export_to_deployment
from parnet_deploy.export.fuse_step import fuse_to_deployment
from tests.builder.fake_gpu import FakeGpu, compile_driver

CHECKPOINT = Path(__file__).parents[2] / "examples/digits/digits.pth.tar"


@pytest.fixture(scope="session")
def exported_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("exported") / "digits"
    fuse_to_deployment(CHECKPOINT, directory)
    export_to_deployment(directory)
    return directory


@pytest.fixture
def exported(exported_once: Path, tmp_path: Path) -> Path:
    """A copy that the test may change."""
    return Path(shutil.copytree(exported_once, tmp_path / "digits"))


@pytest.fixture(scope="session")
def stub_driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_driver(tmp_path_factory.mktemp("driver"))


@pytest.fixture
def fake_gpu(tmp_path: Path, stub_driver: Path, monkeypatch: pytest.MonkeyPatch) -> FakeGpu:
    """TensorRT 10.16 without faults, until the test installs another."""
    return FakeGpu(tmp_path, stub_driver, monkeypatch)
