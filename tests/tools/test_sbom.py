"""The bill of materials is valid, and holds what the package runs with: no more, no less."""

from __future__ import annotations

import configparser
import json
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("cyclonedx")

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

ROOT = Path(__file__).parents[2]
RUNNING = ("cpu", "export", "images", "serve", "sign")
"""Extras for running things that "make install" brings."""


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Made as the Makefile makes it."""
    (line,) = re.findall(
        r"\$\(BIN\)/python (tools/sbom\.py) (\S+)", (ROOT / "Makefile").read_text()
    )
    assert line[1].startswith("dist/"), "which git ignores"
    target = tmp_path_factory.mktemp("sbom") / "sbom.json"
    command = [sys.executable, "-W", "error", line[0], str(target)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return target.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def bill(text: str) -> dict[str, Any]:
    """As data."""
    found: dict[str, Any] = json.loads(text)
    return found


def normal(name: str) -> str:
    """One spelling of a package's name."""
    return re.sub(r"[-_.]+", "-", name).lower()


def test_it_is_valid(text: str) -> None:
    validator = JsonStrictValidator(SchemaVersion.V1_6)
    assert validator.validate_str(text) is None
    assert validator.validate_str(text.replace('"components"', '"compnents"')) is not None


def test_it_lists_every_pinned_dependency_of_the_extras(bill: dict[str, Any]) -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    extras = config["options.extras_require"]
    lists = [config["options"]["install_requires"], *(extras[name] for name in RUNNING)]
    wanted = {normal(re.match(r"[\w-]+", line)[0]) for line in "\n".join(lists).split()}
    listed = {normal(part["name"]): part["version"] for part in bill["components"]}
    assert wanted <= set(listed)
    pins = {}
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            name, _, version = line.partition(" ;")[0].partition("==")
            pins[normal(name)] = version
    gpu = ("cuda-", "nvidia-", "triton")  # what the default wheel of torch brings along on Linux
    loose = {name for name in set(listed) - set(pins) if not name.startswith(gpu)}
    assert loose == set(), "what is needed in turn is pinned too"
    differ = {
        name: (version, pins[name])
        for name, version in listed.items()
        if version.partition("+")[0] != pins.get(name, version) and sys.version_info >= (3, 11)
    }
    assert differ == {}


def test_it_says_which_extras(bill: dict[str, Any]) -> None:
    root = bill["metadata"]["component"]
    assert root["name"] == "parnet-deploy"
    assert root["version"] == metadata.version("parnet-deploy")
    said = {entry["value"] for entry in root["properties"]}
    assert said >= set(RUNNING)
    assert not said & {"dev", "docs", "ray", "gpu"}


def test_nothing_that_only_develops_is_in_it(bill: dict[str, Any]) -> None:
    listed = {normal(part["name"]) for part in bill["components"]}
    assert not listed & {"pytest", "hypothesis", "mypy", "ruff", "sphinx", "cyclonedx-bom"}
    assert len(listed) == len(bill["components"])


def test_who_needs_whom(bill: dict[str, Any]) -> None:
    known = {part["bom-ref"] for part in bill["components"]}
    known.add(bill["metadata"]["component"]["bom-ref"])
    behind = {entry["ref"]: set(entry.get("dependsOn", ())) for entry in bill["dependencies"]}
    assert set(behind) == known
    assert set().union(*behind.values()) <= known
    (root,) = (ref for ref in known if ref.startswith("pkg:pypi/parnet-deploy@"))
    reached, pending = set(), [root]
    while pending:
        ref = pending.pop()
        if ref not in reached:
            reached.add(ref)
            pending += behind[ref]
    assert reached == known, "nothing is in it that nobody needs"
