"""An exported deployment of the shipped digits network, made once and copied for each test."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from parnet_deploy.export.export_step import export_to_deployment
from parnet_deploy.export.fuse_step import fuse_to_deployment
from tests.builder.fake_gpu import FakeGpu
from tests.stubs.compiled import missing
from tests.stubs.cuda_stub import missing_compiler

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


@pytest.fixture
def fake_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeGpu:
    """TensorRT 10.16 without faults, until the test installs another."""
    lacking = missing_compiler()
    if lacking is not None:
        missing(lacking)
    return FakeGpu(tmp_path, monkeypatch)
