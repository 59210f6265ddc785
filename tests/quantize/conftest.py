"""The shipped digits network, exported and calibrated once, and the images that ship."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from parnet_deploy.deployment import Deployment
from parnet_deploy.export.export_step import export_to_deployment
from parnet_deploy.export.fuse_step import FuseOptions, fuse_to_deployment
from parnet_deploy.preprocess import read_labels
from parnet_deploy.quantize.calibrate_step import Calibration, calibrate, load_graphs
from parnet_deploy.quantize.calibration_set import LoadedSet
from parnet_deploy.quantize.chain import Graphs, PartChain
from parnet_deploy.quantize.prepare import Data, DataOptions, ImageSource, load_data
from parnet_deploy.spec import ModelSpec

ROOT = Path(__file__).parents[2]
DIGITS = ROOT / "calibration/digits"
FEW = 60


@dataclass(frozen=True, kw_only=True)
class Digits:
    """Everything about the exported network."""

    directory: Path
    spec: ModelSpec
    graphs: Graphs
    data: Data
    few: Mapping[str, LoadedSet]
    calibration: Calibration
    full: PartChain


def thin(found: LoadedSet) -> LoadedSet:
    """A part of a set, for tests that are not about accuracy."""
    picked = found.spread(FEW)
    assert found.classes is not None
    digest = hashlib.sha256(f"{found.sha256} {FEW}".encode()).hexdigest()
    return replace(found, images=found.images[picked], classes=found.classes[picked], sha256=digest)


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Digits:
    directory = tmp_path_factory.mktemp("quantize") / "digits"
    labels = read_labels(ROOT / "examples/digits/labels.txt")
    fuse_to_deployment(
        ROOT / "examples/digits/digits.pth.tar", directory, FuseOptions(labels=labels)
    )
    export_to_deployment(directory)
    options = DataOptions(
        calibration=ImageSource(paths=(DIGITS / "calibration",)),
        evaluation=ImageSource(paths=(DIGITS / "eval",)),
        noisy=ImageSource(paths=(DIGITS / "noisy",)),
    )
    data = load_data(directory, options)
    deployment = Deployment.open(directory)
    graphs = load_graphs(deployment)
    return Digits(
        directory=directory,
        spec=deployment.spec,
        graphs=graphs,
        data=data,
        few={name: thin(found) for name, found in data.sets.items()},
        calibration=calibrate(directory, data.calibration, data.sets["clean"]),
        full=PartChain(deployment.spec, graphs),
    )


@pytest.fixture
def exported(digits: Digits, tmp_path: Path) -> Path:
    """A copy of the exported deployment that the test may change."""
    return Path(shutil.copytree(digits.directory, tmp_path / "digits"))
