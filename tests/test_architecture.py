"""The layers hold, and what must be light loads nothing heavy."""

from __future__ import annotations

import ast
import importlib.util
import pkgutil
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import parnet_deploy

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "parnet_deploy"
OFFLINE = {"torch", "onnx", "onnxscript", "PIL", "safetensors", "sklearn", "polygraphy"}
"""Packages that only offline steps may load."""

MODULES = sorted(
    module.name for module in pkgutil.walk_packages(parnet_deploy.__path__, "parnet_deploy.")
)
EMBEDDED = [
    name
    for name in MODULES
    if name.startswith(("parnet_deploy.runtime", "parnet_deploy.storage"))
    or name.removeprefix("parnet_deploy.")
    in {"deployment", "compare", "plan", "placement", "input_size", "preprocess", "spec", "errors"}
]
"""What an embedded program loads to run a deployment."""

BUILT_ON = {
    "parnet_deploy.runtime.tensorrt.backend": {"cuda"},
    "parnet_deploy.runtime.openvino.network": {"openvino"},
    "parnet_deploy.runtime.openvino.backend": {"openvino"},
}
"""Backend files that are built on another file of theirs, and so load what it needs."""


def loaded_by(statement: str) -> set[str]:
    """Top-level packages that are in memory after a statement in a fresh interpreter."""
    script = (
        f"{statement}\nimport sys\nprint(*sorted({{m.partition('.')[0] for m in sys.modules}}))"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_layers_and_forbidden_imports() -> None:
    command = shutil.which("lint-imports", path=str(Path(sys.executable).parent))
    if command is None:
        pytest.skip("needs the package import-linter (pip install 'parnet-deploy[dev]')")
    done = subprocess.run([command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "0 broken" in done.stdout


def test_discovery_found_the_package() -> None:
    assert {"parnet_deploy.deployment", "parnet_deploy.storage.journal"} <= set(EMBEDDED)
    assert len(EMBEDDED) > 10


def test_import_of_the_package_loads_no_numpy() -> None:
    loaded = loaded_by("import parnet_deploy; assert parnet_deploy.__version__")
    assert "parnet_deploy" in loaded
    assert not loaded & {*OFFLINE, "numpy", "filelock", "click", "rich", "onnxruntime"}


@pytest.mark.parametrize("name", EMBEDDED)
def test_embedded_module_loads_no_offline_package(name: str) -> None:
    source = (PACKAGE.parent / Path(*name.split("."))).with_suffix(".py")
    backends = {"onnxruntime", "openvino", "tensorrt", "cuda", "MNN", "ncnn"}
    own = {n for n in backends if source.is_file() and _imports(source) & {n}}
    own |= BUILT_ON.get(name, set())
    blocked = sorted(n for n in own if not _installed(n))
    if blocked:
        pytest.skip(f"needs the package {blocked[0]}")
    loaded = loaded_by(f"import {name}")
    assert not loaded & OFFLINE
    assert loaded & backends <= own, "a backend belongs to its own file"


@pytest.mark.parametrize("name", ["deployment", "spec", "errors", "placement", "input_size"])
def test_description_of_a_deployment_needs_the_standard_library_only(name: str) -> None:
    loaded = loaded_by(f"import parnet_deploy.{name}")
    assert not loaded & {*OFFLINE, "numpy", "filelock", "click", "rich", "onnxruntime"}


def test_every_module_has_a_docstring_and_a_readable_size() -> None:
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert ast.get_docstring(ast.parse(text)), f"{path.name}: no docstring"
        assert text.count("\n") <= 350, f"{path}: split it by data"


def test_no_print_and_no_assert_on_input_outside_the_command_line() -> None:
    for path in PACKAGE.rglob("*.py"):
        if path.is_relative_to(PACKAGE / "cli"):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in {"print", "exec", "eval"}, f"{path}:{node.lineno}"


def _imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module.partition(".")[0])
    return found


def _installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None  # namespace packages (cuda) too
