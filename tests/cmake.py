"""CMake projects that tests build, against the Python that runs the tests."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path


def find_tool(name: str) -> str | None:
    """A program beside this Python (pip's), else the system's."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return shutil.which(name, path=path)


def build_project(source: Path, target: Path, *options: str) -> Path:
    """Configure and build; the folder with what was made."""
    generator = ["-G", "Ninja"] if find_tool("ninja") else []
    ninja = [f"-DCMAKE_MAKE_PROGRAM={find_tool('ninja')}"] if generator else []
    python = f"-DPython3_EXECUTABLE={sys.executable}"
    for command in (
        ["-S", str(source), "-B", str(target), *generator, *ninja, python, *options],
        ["--build", str(target)],
    ):
        done = subprocess.run(
            [find_tool("cmake") or "cmake", *command], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
    return target


def missing_compiler() -> str | None:
    """What is needed to build a program that embeds Python and is not here; None if nothing."""
    if not any(map(find_tool, ("c++", "g++", "clang++"))):
        return "a C++ compiler (Debian: apt install g++)"
    if find_tool("cmake") is None or importlib.util.find_spec("pybind11") is None:
        return "CMake and pybind11 (pip install 'parnet-deploy[dev]')"
    header = Path(sysconfig.get_paths()["include"]) / "Python.h"
    library = Path(
        sysconfig.get_config_var("LIBDIR") or "", sysconfig.get_config_var("LDLIBRARY") or ""
    )
    if not header.is_file() or library.suffix == ".a" or not library.is_file():
        return f"Python's headers and shared library ({header}, {library})"
    return None
