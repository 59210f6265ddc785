"""The site that ``make docs`` builds: complete, and to be read without a network."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

from parnet_deploy import errors
from parnet_deploy.bench.result import BenchReport
from parnet_deploy.cli.main import VERBS, cli
from tests.docs.pages import ROOT

DOCS = ROOT / "docs"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built as the Makefile builds it, elsewhere."""
    out = tmp_path_factory.mktemp("site")
    (line,) = re.findall(r"-m sphinx (.*) docs docs/_build/html", (ROOT / "Makefile").read_text())
    flags = line.replace("docs/_build/doctrees", str(out / "doctrees")).split()
    assert {"-W", "-n"} <= set(flags)
    command = [sys.executable, "-m", "sphinx", *flags, "docs", str(out / "html")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return out / "html"


@pytest.mark.slow
def test_the_reference_is_complete(site: Path) -> None:
    commands = (site / "reference/cli.html").read_text(encoding="utf-8")
    for verb in VERBS:
        assert f'id="parnet-deploy-{verb}"' in commands, verb
        command = cli.get_command(click.Context(cli), verb)
        assert command is not None
        below = command.commands if isinstance(command, click.Group) else {}
        for name, one in {verb: command, **{f"{verb}-{k}": v for k, v in below.items()}}.items():
            shown = [param for param in one.params if not getattr(param, "hidden", False)]
            for option in (o for param in shown for o in param.opts if o.startswith("--")):
                assert f'id="cmdoption-parnet-deploy-{name}-{option[2:]}"' in commands, option
    python = (site / "reference/api.html").read_text(encoding="utf-8")
    names = [name for name, thing in vars(errors).items() if isinstance(thing, type)]
    for name in [*(f"errors.{name}" for name in names), "compare.compare", "deployment.Deployment"]:
        assert f'id="parnet_deploy.{name}"' in python, name
    for method in ("open", "run_into", "submit", "enqueue", "describe", "close"):
        assert f'id="parnet_deploy.runtime.session.Runtime.{method}"' in python, method
    formats = (site / "reference/formats.html").read_text(encoding="utf-8")
    for key in BenchReport.__annotations__:
        assert f"BenchReport.{key}" in formats, key
    assert "ModelInferRequest" in formats


@pytest.mark.slow
def test_nothing_is_fetched(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 12
    fetched = re.compile(r"<(?:script|img|link|iframe)\b[^>]*\b(?:src|href)=\"(?:https?:)?//")
    assert [page.name for page in pages if fetched.search(page.read_text(encoding="utf-8"))] == []
    assert (site / "searchindex.js").stat().st_size > 10_000


def test_every_page_is_in_the_contents() -> None:
    index = (DOCS / "index.md").read_text(encoding="utf-8")
    named = {line for block in re.findall(r"```{toctree}\n(.*?)```", index, re.DOTALL)
             for line in block.splitlines() if re.fullmatch(r"[\w/]+", line)}  # fmt: skip
    found = {path.relative_to(DOCS).with_suffix("").as_posix()
             for path in DOCS.rglob("*.md") if "_build" not in path.parts}  # fmt: skip
    assert found - {"index"} == named


def test_the_pictures_are_those_that_the_script_draws() -> None:
    specification = importlib.util.spec_from_file_location("pictures", DOCS / "pictures.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    for name, draw in module.PICTURES.items():
        assert (DOCS / "pictures" / name).read_text(encoding="utf-8") == draw(), name
    assert {path.name for path in (DOCS / "pictures").iterdir()} == set(module.PICTURES)
