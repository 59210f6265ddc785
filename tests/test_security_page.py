"""Whatever SECURITY.md promises is held by a test that exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)))


def functions_in(path: Path) -> set[str]:
    """Names of the test functions of a file, those in classes too."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {node.name for node in ast.walk(tree) if isinstance(node, kinds)}


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_every_test_that_is_named_exists(file: str, name: str) -> None:
    assert name.startswith("test_")
    assert name in functions_in(ROOT / file)


def test_every_promise_names_one() -> None:
    rows = re.findall(r"^\| (.+) \| (.+) \|$", PAGE, re.MULTILINE)
    promises = [row for row in rows if row != ("promise", "held by")]
    assert len(promises) > 15
    for promise, proof in promises:
        assert re.match(r"`tests/[\w/]+\.py::test_\w+`", proof), promise


def test_no_test_is_named_in_another_form() -> None:
    assert len(re.findall(r"tests/[\w/]+\.py", PAGE)) >= len(NAMED)
    assert PAGE.count("::test_") == PAGE.count("tests/")


def test_options_and_variables_that_are_named_exist() -> None:
    source = "\n".join(
        path.read_text(encoding="utf-8") for path in (ROOT / "parnet_deploy").rglob("*.py")
    )
    for name in re.findall(r"`(--[a-z-]+|[A-Z_]{8,})`", PAGE):
        assert f'"{name}' in source or f"/{name}" in source, name
