"""The C++ host, built as its README.md builds it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cmake import build_project
from tests.examples.load import EXAMPLES

pytestmark = [pytest.mark.compiler, pytest.mark.slow]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("embed_cpp")
    return build_project(EXAMPLES / "embed_cpp", target) / "embed_cpp"


def run(program: Path, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Without a variable that would help Python find its packages."""
    clean = {"PATH": os.environ["PATH"], "OMP_WAIT_POLICY": "PASSIVE", **environment}
    command = [str(program), *map(str, arguments)]
    return subprocess.run(
        command, env=clean, capture_output=True, text=True, timeout=120, check=False
    )


def make_environment(folder: Path) -> Path:
    """A virtual environment without packages; its Python."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    return folder / "bin" / "python"


MOVED = """
import numpy as np
from parnet_deploy.reference import Reference

real = Reference.unpack

def unpack(data, where):
    stored = real(data, where)
    if "plan" in where:  # the canary
        return stored
    return Reference(image=stored.image, logits=stored.{moved})

Reference.unpack = unpack
"""


def test_frames_from_two_threads_have_the_reference_logits(program, digits) -> None:
    done = run(program, digits, 50, 2, PYTHONHOME="/nonexistent", PYTHONPATH="/nonexistent")
    assert (done.returncode, done.stderr) == (0, "")
    plan, timing, error = done.stdout.splitlines()
    assert plan == "plan onnxruntime-fp32-one-1threads: 3x32x32, 10 classes"
    assert re.fullmatch(r"100 frames from 2 threads: p50 \d+\.\d{3} ms, p99 \d+\.\d{3} ms", timing)
    apart = re.fullmatch(r"error (\S+) of the largest logit, tolerance 1e-04", error)
    assert 0 <= float(apart[1]) <= 1e-4


@pytest.mark.parametrize("moved", ["logits + np.float32(0.1)", "logits * np.float32('nan')"])
def test_other_logits_end_it_with_3(program, digits, tmp_path, moved) -> None:
    """In another environment, whose copy of the package remembers another reference."""
    python = make_environment(tmp_path / "venv")
    (site,) = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    (site / "packages.pth").write_text("\n".join(filter(os.path.isdir, sys.path)))
    (site / "sitecustomize.py").write_text(MOVED.format(moved=moved))
    done = run(program, digits, 2, 1, PARNET_PYTHON=str(python))
    assert (done.returncode, done.stderr) == (3, "")


def test_our_errors_are_exceptions_with_our_message(program, digits) -> None:
    done = run(program, "/nowhere")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("DeploymentNotFoundError: deployment /nowhere: ")
    done = run(program, digits, 1, 2000)
    assert done.returncode == 1
    assert done.stderr == "SpecError: slots: got 2000, expected 1 to 1024.\n"


def test_a_python_without_packages_is_an_exception_too(program, digits, tmp_path) -> None:
    done = run(program, digits, PARNET_PYTHON=str(make_environment(tmp_path / "venv")))
    assert done.returncode == 1
    assert done.stderr == "ModuleNotFoundError: No module named 'parnet_deploy'\n"


def test_usage(program) -> None:
    assert run(program).returncode == 2
