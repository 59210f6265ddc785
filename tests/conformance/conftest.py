"""One deployment behind the real Triton and behind our server; both run while the tests do."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from parnet_deploy.builder.build import BuildOptions, build_to_deployment
from parnet_deploy.deployment import Deployment
from parnet_deploy.export.export_step import export_to_deployment
from parnet_deploy.export.fuse_step import FuseOptions, fuse_to_deployment
from parnet_deploy.preprocess import Preprocessing, load_image
from parnet_deploy.triton.export import export_to_repository
from tests.conformance.clients import Answers, ask
from tests.conformance.oracle import Served, missing_oracle, serve_triton
from tests.conformance.ours import serve_ours

REPOSITORY = Path(__file__).parents[2]
DIGITS = REPOSITORY / "examples/digits"
EVAL = REPOSITORY / "calibration/digits/eval"


@pytest.fixture(scope="session")
def oracle() -> None:
    """Skip without the environments; PARNET_REQUIRE_ORACLE=1 fails instead."""
    missing = missing_oracle()
    if missing is None:
        return
    if os.environ.get("PARNET_REQUIRE_ORACLE") == "1":
        pytest.fail(f"needs {missing}, and PARNET_REQUIRE_ORACLE=1 forbids to skip", pytrace=False)
    pytest.skip(f"needs {missing}")


@pytest.fixture(scope="session")
def digits(oracle: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained network with labels, one engine on the CPU, batches up to 8."""
    directory = tmp_path_factory.mktemp("engines") / "digits"
    options = FuseOptions(labels=tuple(f"digit {k}: it" for k in range(10)))
    fuse_to_deployment(DIGITS / "digits.pth.tar", directory, options)
    export_to_deployment(directory)
    build_to_deployment(directory, BuildOptions(backend="onnxruntime", placement="one", threads=1))
    return directory


@pytest.fixture(scope="session")
def data(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the probes send: four images as a tensor, two of them as files."""
    folder = tmp_path_factory.mktemp("data")
    preprocessing = Preprocessing.from_json(Deployment.open(digits).preprocessing or {})
    files = sorted(EVAL.rglob("*.png"))[::80][:4]
    np.save(folder / "images.npy", np.stack([load_image(f, preprocessing) for f in files]))
    for number, file in enumerate(files[:2]):
        shutil.copy(file, folder / f"{number}.png")
    return folder


@pytest.fixture(scope="session")
def triton(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The real Triton on the exported repository."""
    folder = tmp_path_factory.mktemp("triton")
    export_to_repository(digits, folder / "models")
    with serve_triton(folder / "models", "digits", folder) as served:
        yield served


@pytest.fixture(scope="session")
def ours(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """``parnet-deploy serve`` on the deployment."""
    with serve_ours(digits, tmp_path_factory.mktemp("ours")) as served:
        yield served


@pytest.fixture(scope="session")
def asked(data: Path) -> Callable[[str, Served], Answers]:
    """Answers of a server to a suite of probes, asked once."""
    found: dict[tuple[str, str], Answers] = {}

    def answers(suite: str, server: Served) -> Answers:
        key = (suite, server.name)
        if key not in found:
            found[key] = ask(suite, server, data)
        return found[key]

    return answers
