"""A fused, exported and built digits deployment, made once and copied for each test."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

from parnet_deploy.builder.build import BuildOptions, build_to_deployment
from parnet_deploy.cli.main import cli
from parnet_deploy.export import baselines
from parnet_deploy.export.export_step import export_to_deployment
from parnet_deploy.export.fuse_step import fuse_to_deployment

REPOSITORY = Path(__file__).parents[2]
CHECKPOINT = REPOSITORY / "examples/digits/digits.pth.tar"
EVAL = REPOSITORY / "calibration/digits/eval"

Invoke = Callable[..., Result]


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command line owns its process: what it sets there is put back after each test."""
    for name in ("OMP_WAIT_POLICY", "TORCH_CPP_LOG_LEVEL"):
        monkeypatch.setenv(name, os.environ.get(name, ""))
    monkeypatch.delenv("COLUMNS", raising=False)


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    """Threads that wait for each other are slow on cores that others use too."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(baselines, "usable_cores", lambda: 1)
        yield
    torch.set_num_threads(before)


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current directory."""
    place = tmp_path / "work"
    place.mkdir()
    monkeypatch.chdir(place)
    return place


@pytest.fixture
def invoke(workplace: Path) -> Invoke:
    """Run the command line in this process, in the workplace; bugs are raised."""

    def run(*args: object) -> Result:
        result = CliRunner().invoke(cli, list(map(str, args)))
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run


@pytest.fixture
def run_process(workplace: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run Python in the workplace, in a process of its own."""

    def run(*args: object) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
        command = [sys.executable, *map(str, args)]
        return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)

    return run


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Deployments at each stage: fused, exported, built."""
    place = tmp_path_factory.mktemp("made")
    fuse_to_deployment(CHECKPOINT, place / "fused")
    shutil.copytree(place / "fused", place / "exported")
    export_to_deployment(place / "exported")
    shutil.copytree(place / "exported", place / "built")
    build_to_deployment(place / "built", BuildOptions(placement="one"))
    return {name: place / name for name in ("fused", "exported", "built")}


@pytest.fixture
def place_deployment(made: dict[str, Path], workplace: Path) -> Callable[..., Path]:
    """Copy a deployment of a stage into the workplace's engines."""

    def place(stage: str = "built", name: str = "digits") -> Path:
        target = workplace / "engines" / name
        shutil.copytree(made[stage], target)
        return target

    return place


@pytest.fixture
def built(place_deployment: Callable[..., Path]) -> Path:
    """engines/digits, built."""
    return place_deployment("built")


@pytest.fixture
def images(workplace: Path) -> Path:
    """Two real images of each digit, in folders named like the labels."""
    target = workplace / "images"
    for folder in sorted(EVAL.iterdir()):
        if folder.is_dir():
            (target / folder.name).mkdir(parents=True)
            for file in sorted(folder.iterdir())[:2]:
                shutil.copy(file, target / folder.name)
    return target


@pytest.fixture
def snapshot(workplace: Path) -> Callable[[], dict[str, bytes]]:
    """What is in the workplace, to show that a failed command left nothing behind."""

    def take() -> dict[str, bytes]:
        files = (path for path in workplace.rglob("*") if path.is_file())
        kept = (path for path in files if not path.name.startswith(".lock"))
        return {path.relative_to(workplace).as_posix(): path.read_bytes() for path in kept}

    return take
