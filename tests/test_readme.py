"""The README says what is so: its blocks run, its links lead somewhere, its table is made."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [
    path
    for path in ROOT.rglob("*.md")
    if not any(part.startswith(".") for part in path.relative_to(ROOT).parts)
]


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def run(arguments: list[str], directory: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the files that the README's commands name."""
    from PIL import Image

    directory = tmp_path_factory.mktemp("readme")
    shutil.copy(ROOT / "examples/digits/digits.pth.tar", directory / "model.pt")
    source = next((ROOT / "calibration/digits/eval").rglob("*.png"))
    Image.open(source).convert("RGB").save(directory / "photo.jpg")
    photos = ROOT / "calibration/digits/calibration"
    for folder in filter(Path.is_dir, photos.iterdir()):
        (directory / "photos" / folder.name).mkdir(parents=True)
        for file in sorted(folder.iterdir())[:8]:
            shutil.copy(file, directory / "photos" / folder.name)
    return directory


def commands() -> list[str]:
    lines = [line for block in blocks("console") for line in block.splitlines()]
    return [line.partition("#")[0].strip() for line in lines if line.strip()]


@pytest.mark.slow
def test_the_commands_run_in_their_order(workplace: Path) -> None:
    ours = [line for line in commands() if line.startswith("parnet-deploy")]
    assert [line.split()[1] for line in ours] == [
        *("fuse", "build", "bench", "run"),
        *("calibrate", "build"),
    ]
    for line in ours:
        extra = ["--rounds", "2"] if " bench" in line else []
        done = run(["-m", "parnet_deploy", *line.split()[1:], *extra], workplace)
        assert done.returncode == 0, f"{line}: {done.stderr}"


@pytest.mark.slow
def test_the_python_block_runs(workplace: Path) -> None:
    if not (workplace / "engines/digits").exists():
        for arguments in (["fuse", "model.pt", "--name", "digits"], ["build", "digits"]):
            done = run(["-m", "parnet_deploy", *arguments], workplace)
            assert done.returncode == 0, done.stderr
    (block,) = blocks("python")
    done = run(["-c", block], workplace)
    assert done.returncode == 0, done.stderr


def test_every_make_target_that_is_named_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    named = {m for line in commands() for m in re.findall(r"\bmake ([a-z-]+)", line)}
    assert named
    assert named <= targets


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    headings = {
        re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-")
        for heading in re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
    }
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("#"):
            assert target[1:] in headings, target
        elif not target.startswith("http"):
            assert (page.parent / target.partition("#")[0]).exists(), target


def test_the_table_is_made_from_the_committed_results() -> None:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        import readme_table
    finally:
        sys.path.pop(0)
    table = README.split(readme_table.BEGIN)[1].split(readme_table.END)[0]
    assert table == readme_table.render()
