"""Shared libraries that tests compile from C; what is missing is skipped by name, or fails."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import NoReturn

import pytest

FOLDER = Path(__file__).parent


def compile_library(source: Path | str, target: Path) -> Path:
    """Compile C (a file beside this one, or text) into a library whose name is its soname."""
    compiler = shutil.which("cc")
    if compiler is None:
        missing("a C compiler (cc)")
    target.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(source, str):
        path = target.with_suffix(".c")
        path.write_text(source, encoding="utf-8")
        source = path
    soname = f"-Wl,-soname,{target.name}"
    command = [compiler, "-shared", "-fPIC", "-O1", soname, "-o", str(target), str(source), "-ldl"]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return target


def missing(what: str) -> NoReturn:
    """Skip and name what is missing; PARNET_REQUIRE_STUBS=1 (make check) fails instead."""
    if os.environ.get("PARNET_REQUIRE_STUBS") == "1":
        pytest.fail(f"needs {what}, and PARNET_REQUIRE_STUBS=1 forbids to skip", pytrace=False)
    pytest.skip(f"needs {what}")
