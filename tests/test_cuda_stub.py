"""Runs tests/runtime_gpu over the stand-in for the CUDA driver, each file in its own process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.stubs.cuda_stub import missing_compiler, stub_is_loaded

ROOT = Path(__file__).parents[1]
FILES = sorted(path.name for path in (ROOT / "tests" / "runtime_gpu").glob("test_*.py"))

PLAIN = ("-p", "no:xdist", "-p", "no:cacheprovider")


def pytest_in_own_process(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *PLAIN, *arguments],
        cwd=ROOT,
        env={**clean, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("name", FILES)
def test_over_the_stand_in_driver(name: str) -> None:
    missing = missing_compiler()
    if missing is not None and os.environ.get("PARNET_REQUIRE_STUBS") != "1":
        pytest.skip(f"needs {missing}")
    done = pytest_in_own_process(f"tests/runtime_gpu/{name}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
    assert "skipped" not in done.stdout, done.stdout


def test_the_folder_is_not_collected_with_the_others() -> None:
    others = (f for f in (ROOT / "tests").iterdir() if f.is_dir() and f.name != "runtime_gpu")
    ignored = [f"--ignore={folder}" for folder in others]
    done = pytest_in_own_process("--collect-only", "tests", *ignored)
    assert "tests/test_cuda_stub.py::" in done.stdout, done.stdout + done.stderr
    assert "runtime_gpu/test_" not in done.stdout
    assert not stub_is_loaded()


@pytest.mark.parametrize(("required", "code", "word"), [("0", 0, "skipped"), ("1", 1, "forbids")])
def test_without_a_compiler_the_tests_say_so(required: str, code: int, word: str) -> None:
    done = pytest_in_own_process(
        "tests/runtime_gpu/test_stub.py",
        "-rs",
        "-k",
        "starts",
        PATH="/nonexistent",
        CC="",
        PARNET_REQUIRE_STUBS=required,
    )
    assert done.returncode == code, done.stdout
    assert "needs a C compiler (cc)" in done.stdout
    assert word in done.stdout


def test_gpu_tests_never_run_over_the_stand_in(tmp_path: Path) -> None:
    if missing_compiler() is not None:
        pytest.skip("needs a C compiler (cc)")
    (tmp_path / "conftest.py").write_text(
        (ROOT / "tests" / "conftest.py").read_text(encoding="utf-8"), encoding="utf-8"
    )
    (tmp_path / "test_it.py").write_text(
        "import pytest\n"
        "from tests.stubs.cuda_stub import load_stub\n"
        "load_stub().reset()\n"
        "@pytest.mark.gpu\n"
        "def test_on_a_gpu():\n"
        "    pass\n",
        encoding="utf-8",
    )
    done = pytest_in_own_process(f"--rootdir={ROOT}", "-c", "setup.cfg", "-rs", str(tmp_path))
    assert "1 skipped" in done.stdout, done.stdout + done.stderr
    assert "stand-in driver" in done.stdout
