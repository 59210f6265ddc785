"""Fixtures of the storage tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.storage.states import OLD, write_state


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A deployment in the old state."""
    path = tmp_path / "model"
    write_state(path, OLD)
    return path
