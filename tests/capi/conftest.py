"""A built deployment, and the library and its test programs, made once."""

from __future__ import annotations

from pathlib import Path

import pytest

from parnet_deploy.capi import CMAKE_DIR
from tests.cmake import build_project
from tests.digits import build_digits


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """In a path that is not ASCII: an embedded Python has to read it in any locale."""
    return build_digits(tmp_path_factory.mktemp("capi") / "zahlen-ä")


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with host, plugin, header and the library."""
    target = tmp_path_factory.mktemp("programs")
    return build_project(Path(__file__).parent, target, f"-Dparnet_deploy_DIR={CMAKE_DIR}")
