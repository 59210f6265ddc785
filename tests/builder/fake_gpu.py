"""Let the builder's child process find a fake TensorRT and a stub driver."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path

import pytest

from tests.stubs.compiled import FOLDER, compile_library
from tests.stubs.fake_tensorrt import Faults

ROOT = Path(__file__).parents[2]
_SHIM = """import sys
from tests.stubs.fake_tensorrt import Faults, fake_tensorrt
sys.modules["tensorrt"] = fake_tensorrt({version!r}, Faults(**{faults!r}), **{control!r})
"""


class FakeGpu:
    """What the next child processes find: a version of TensorRT, its faults, a GPU.

    Args:
        folder: For the shim and the caches.
        driver: The stub driver.
        monkeypatch: Of the test.
        prelude: Python that the child runs when it imports TensorRT, before the fake one is there.
    """

    def __init__(
        self, folder: Path, driver: Path, monkeypatch: pytest.MonkeyPatch, prelude: str = ""
    ) -> None:
        self._shim, self._prelude = folder / "shim", prelude
        self._shim.mkdir()
        self.cache = folder / "cache"
        self._monkeypatch = monkeypatch
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(self._shim), str(ROOT)]))
        monkeypatch.setenv("LD_LIBRARY_PATH", str(driver.parent))
        monkeypatch.setenv("PARNET_CACHE", str(self.cache))
        self.install()

    def install(self, version: str = "10.16", faults: Faults | None = None, **control: str) -> None:
        """Put this version there, with these faults."""
        text = _SHIM.format(version=version, faults=asdict(faults or Faults()), control=control)
        (self._shim / "tensorrt.py").write_text(f"{self._prelude}\n{text}", encoding="utf-8")

    def break_import(self, statement: str) -> None:
        """The module runs this instead."""
        (self._shim / "tensorrt.py").write_text(statement, encoding="utf-8")

    def remove(self) -> None:
        """No TensorRT any more."""
        (self._shim / "tensorrt.py").unlink()

    def set_driver_error(self, code: int) -> None:
        """The driver refuses a context."""
        self._monkeypatch.setenv("FAKE_DRIVER_ERROR", str(code))


def compile_driver(folder: Path) -> Path:
    """The stub driver as ``libcuda.so.1``."""
    return compile_library(FOLDER / "idle_driver.c", folder / "libcuda.so.1")
