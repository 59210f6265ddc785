"""A built deployment for the examples, made once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.digits import build_digits


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_digits(tmp_path_factory.mktemp("examples") / "digits")
