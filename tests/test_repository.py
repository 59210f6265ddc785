"""What git holds: no weights, no engines, nothing large; CI runs what a developer runs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LIMIT_BYTES = 2_000_000
MACHINE_MADE = {".plan", ".engine", ".trt", ".onnx", ".safetensors", ".cache", ".pyc"}


@pytest.fixture(scope="module")
def tracked() -> list[Path]:
    """All files that git tracks."""
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("needs git and a checkout")
    command = ["git", "-c", f"safe.directory={ROOT}", "ls-files", "-z"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    found = [ROOT / name for name in done.stdout.split("\0") if name]
    assert ROOT / "setup.cfg" in found
    return [path for path in found if path.exists()]


def test_no_large_file(tracked: list[Path]) -> None:
    large = {path.name: size for path in tracked if (size := path.stat().st_size) > LIMIT_BYTES}
    assert large == {}


def test_nothing_that_a_machine_made(tracked: list[Path]) -> None:
    assert [path for path in tracked if path.suffix in MACHINE_MADE] == []
    inside = [path.name for path in tracked if path.is_relative_to(ROOT / "engines")]
    assert inside == ["README.md"]


def test_deployments_are_ignored(tracked: list[Path]) -> None:
    for name in ("engines/x/deployment.json", "a.plan", "b.engine", ".venv/x", "dist/x", "build/x"):
        command = ["git", "-c", f"safe.directory={ROOT}", "check-ignore", "-q", name]
        assert subprocess.run(command, cwd=ROOT, check=False).returncode == 0, name


def test_ci_runs_targets_of_make_and_nothing_else() -> None:
    script = ROOT / ".ci" / "run"
    lines = script.read_text(encoding="utf-8").splitlines()
    commands = [line for line in lines if line and not line.startswith(("#", "cd ", "set "))]
    soak = "SOAK_MINUTES=2 make soak"
    assert commands == ["make check", "make conformance", "make test-ray", soak]
    assert "set -euo pipefail" in lines
    assert os.access(script, os.X_OK)


def test_make_help_lists_every_target() -> None:
    if shutil.which("make") is None:
        pytest.skip("needs make")
    done = subprocess.run(
        ["make", "--no-print-directory"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):(?!=)", text, flags=re.MULTILINE))
    listed = re.findall(r"^  make (\S+)", done.stdout, flags=re.MULTILINE)
    assert sorted(listed) == sorted(targets)
    for name in ("help", "install", "demo", "test", "check", "lint", "bench", "clean"):
        assert f"  make {name} " in done.stdout


def test_missing_python_is_explained() -> None:
    if shutil.which("make") is None:
        pytest.skip("needs make")
    command = ["make", "--no-print-directory", "PYTHON=", "VENV=/nonexistent/venv", "install"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "no Python 3.10 or later found" in done.stderr
