"""A backend whose package is broken ends its own process, never that of doctor."""

from __future__ import annotations

from pathlib import Path

import pytest

from parnet_deploy.doctor.probe import Probe, probe_backend

BROKEN = {
    "raise RuntimeError('boom')": "status 1: RuntimeError: boom",
    "import sys; sys.exit(7)": "status 7: no message",
    "import os; os.abort()": "signal 6",
    "import time; time.sleep(600)": "did not end within 3 s",
    "import os; os._exit(0)": "status 0: no message",
}


def test_what_is_installed_is_ready() -> None:
    assert probe_backend("fake") == Probe("simulated devices, for trying and testing")
    found = probe_backend("onnxruntime")
    assert found.fix is None
    assert found.detail.startswith("ready; providers: ")
    assert "CPU" in found.detail
    assert probe_backend("mixed").fix is None


def test_a_module_that_is_not_named_like_its_backend(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "MNN.py").write_text("raise RuntimeError('boom')")
    monkeypatch.syspath_prepend(tmp_path)
    found = probe_backend("mnn")
    assert "status 1: RuntimeError: boom" in found.detail
    assert "python -c 'import MNN'" in str(found.fix)


@pytest.mark.parametrize("source", BROKEN)
def test_whatever_an_import_does_is_a_finding(tmp_path: Path, monkeypatch, source: str) -> None:
    (tmp_path / "onnxruntime.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    limit_s = 3.0 if "sleep" in source else 60.0
    found = probe_backend("onnxruntime", limit_s=limit_s)
    assert BROKEN[source] in found.detail
    assert found.fix is not None
    assert "import onnxruntime" in found.fix


def test_a_package_that_is_missing_names_its_extra(tmp_path: Path, monkeypatch) -> None:
    source = "raise ModuleNotFoundError('gone', name='onnxruntime')"
    (tmp_path / "onnxruntime.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    found = probe_backend("onnxruntime")
    assert found.detail == "cannot be loaded"
    assert "parnet-deploy[cpu]" in str(found.fix)
