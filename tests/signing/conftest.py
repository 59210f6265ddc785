"""A runnable deployment, signed, and the keys that did and did not sign it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

pytest.importorskip("cryptography")

from parnet_deploy.signing.sign import sign_deployment
from parnet_deploy.signing.trust import VARIABLE
from tests.serve.service_toys import publish
from tests.signing.keys import Pair, make_pair


@pytest.fixture(autouse=True)
def _nobody_is_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the environment of the tests says."""
    monkeypatch.delenv(VARIABLE, raising=False)


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """The key that has signed."""
    return make_pair(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="session")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """Another one."""
    return make_pair(tmp_path_factory.mktemp("keys"), "stranger")


@pytest.fixture(scope="session")
def signed_once(tmp_path_factory: pytest.TempPathFactory, pair: Pair) -> Path:
    """Made once."""
    path = publish(tmp_path_factory.mktemp("engines") / "toy")
    sign_deployment(path, pair.key)
    return path


@pytest.fixture
def signed(signed_once: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(signed_once, tmp_path / "engines" / "toy"))


@pytest.fixture
def unsigned(signed: Path) -> Path:
    """The same without a signature."""
    (signed / "deployment.sig").unlink()
    return signed
