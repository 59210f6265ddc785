"""The benchmarks are programs beside the package; their modules import each other by bare name."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(autouse=True)
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> Path:
    """Their folder, on the path."""
    monkeypatch.syspath_prepend(str(FOLDER))
    return FOLDER


@pytest.fixture(scope="session", autouse=True)
def _forget() -> object:
    yield
    for name, module in list(sys.modules.items()):
        if getattr(module, "__file__", None) and Path(module.__file__).parent == FOLDER:
            del sys.modules[name]
