"""Let the builder's child process find a fake TensorRT and a stub driver."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path

import pytest

from tests.stubs.cuda_stub import build_stub
from tests.stubs.fake_tensorrt import Faults

ROOT = Path(__file__).parents[2]
_DRIVER = """from tests.stubs.cuda_stub import load_stub
driver = load_stub()
driver.reset(devices=3)
"""
_SHIM = """import sys
{prelude}
from tests.stubs.fake_tensorrt import Faults, fake_tensorrt
sys.modules["tensorrt"] = fake_tensorrt({version!r}, Faults(**{faults!r}), **{control!r})
"""


class FakeGpu:
    """What the next child processes find: a version of TensorRT, its faults, a GPU.

    Args:
        folder: For the shim and the caches.
        monkeypatch: Of the test.
    """

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._shim, self._prelude = folder / "shim", _DRIVER
        self._shim.mkdir()
        self.cache = folder / "cache"
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(self._shim), str(ROOT)]))
        monkeypatch.setenv("LD_LIBRARY_PATH", str(build_stub().parent))
        monkeypatch.setenv("PARNET_CACHE", str(self.cache))
        self.install()

    def install(self, version: str = "10.16", faults: Faults | None = None, **control: str) -> None:
        """Put this version there, with these faults."""
        about = {"version": version, "faults": asdict(faults or Faults()), "control": control}
        text = _SHIM.format(prelude=self._prelude, **about)
        (self._shim / "tensorrt.py").write_text(text, encoding="utf-8")

    def break_import(self, statement: str) -> None:
        """The module runs this instead."""
        (self._shim / "tensorrt.py").write_text(statement, encoding="utf-8")

    def remove(self) -> None:
        """No TensorRT any more."""
        (self._shim / "tensorrt.py").unlink()

    def set_driver_error(self, code: int) -> None:
        """The driver refuses a context."""
        self._prelude = f"{_DRIVER}driver.fail('cuDevicePrimaryCtxRetain', {code})"
        self.install()

    def remove_driver(self) -> None:
        """No driver, as far as this machine has none of its own."""
        self._prelude = ""
        self.install()
