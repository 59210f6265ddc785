"""A GPU job can never pass empty: what is missing is named, and can be made a failure."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = Path(__file__).with_name("conftest.py")
TESTS = """
import pytest

@pytest.mark.gpu
def test_on_a_gpu():
    pass

@pytest.mark.tensorrt
def test_with_tensorrt():
    pass

def test_anywhere():
    pass
"""


def run(path: Path, missing: str | None, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run three tests on a machine that lacks this."""
    patch = f"\n\nCAPABILITIES = dict.fromkeys(CAPABILITIES, lambda: {missing!r})\n"
    (path / "conftest.py").write_text(CONFTEST.read_text(encoding="utf-8") + patch, "utf-8")
    (path / "test_it.py").write_text(TESTS, encoding="utf-8")
    (path / "pytest.ini").write_text("[pytest]\nmarkers =\n gpu: x\n tensorrt: x\n", "utf-8")
    clean = {key: value for key, value in os.environ.items() if not key.startswith("P")}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-rs", "-p", "no:cacheprovider", "-p", "no:xdist"],
        cwd=path,
        env={**clean, "PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_skip_names_what_is_missing(tmp_path: Path) -> None:
    done = run(tmp_path, "the NVIDIA driver (libcuda.so.1)")
    assert done.returncode == 0, done.stdout
    assert "1 passed, 2 skipped" in done.stdout
    assert "needs the NVIDIA driver (libcuda.so.1)" in done.stdout


def test_required_gpu_turns_the_skip_into_a_failure(tmp_path: Path) -> None:
    done = run(tmp_path, "the NVIDIA driver", PARNET_REQUIRE_GPU="1")
    assert done.returncode == 1, done.stdout
    assert "1 passed, 2 errors" in done.stdout
    assert "needs the NVIDIA driver, and PARNET_REQUIRE_GPU=1 forbids to skip" in done.stdout


def test_nothing_missing_runs_all(tmp_path: Path) -> None:
    done = run(tmp_path, None, PARNET_REQUIRE_GPU="1")
    assert done.returncode == 0, done.stdout
    assert "3 passed" in done.stdout


def test_probes_agree_with_what_is_installed(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin = next(
        plugin
        for plugin in request.config.pluginmanager.get_plugins()
        if getattr(plugin, "__file__", None) == str(CONFTEST)
    )
    monkeypatch.setattr(plugin.importlib.util, "find_spec", lambda name: None)
    assert plugin.missing_module("cuda", "gpu") == (
        "the package cuda (pip install 'parnet-deploy[gpu]')"
    )
    assert "the package tensorrt" in plugin.missing_tensorrt()
    assert isinstance(plugin.missing_gpu(), str)
