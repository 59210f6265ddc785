"""Every block of every page does what the page says."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.docs.pages import PAGES, ROOT, Block, prepared, read_blocks, read_commands
from tests.docs.printed import is_printed
from tests.docs.shell import Shell
from tests.docs.syntax import check_command

LANGUAGES = {"c", "console", "python", "sh", "text"}
MARKS = ("", "figures vary", "prints", "exit 1", "exit 2", "exit 3")
BLOCKS = [block for page in PAGES for block in read_blocks(page)]


@pytest.fixture(scope="session")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the pages' commands name: the clone's images, a checkpoint, photos, a deployment."""
    from PIL import Image

    directory = tmp_path_factory.mktemp("clone")
    for name in ("examples", "calibration"):
        (directory / name).symlink_to(ROOT / name)
    shutil.copy(ROOT / "examples/digits/digits.pth.tar", directory / "model.pt")
    source = sorted((ROOT / "calibration/digits/eval/7").iterdir())[0]
    Image.open(source).convert("RGB").save(directory / "photo.jpg")
    for folder in filter(Path.is_dir, (ROOT / "calibration/digits/calibration").iterdir()):
        (directory / "photos" / folder.name).mkdir(parents=True)
        for file in sorted(folder.iterdir())[:8]:
            shutil.copy(file, directory / "photos" / folder.name)
    return directory


@pytest.fixture(scope="session")
def engines(clone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The deployment ``digits``, built, for the pages that start with one."""
    shell = Shell(tmp_path_factory.mktemp("engines"))
    for words in (
        ["fuse", str(clone / "model.pt"), "--name", "digits"],
        ["build", "digits"],
    ):
        shell.execute(["parnet-deploy", *words], "preparing")
    return shell.directory / "engines"


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_page_runs_from_top_to_bottom(
    page: Path, clone: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    blocks = read_blocks(page)
    if not any(block.runs for block in blocks):
        return
    directory = tmp_path / "clone"
    shutil.copytree(clone, directory, symlinks=True)
    name = prepared(page)
    if name is not None:
        shutil.copytree(request.getfixturevalue("engines"), directory / "engines")
        assert (directory / "engines" / name).is_dir()
    shell = Shell(directory)
    try:
        for block, following in zip(blocks, [*blocks[1:], None], strict=True):
            if block.runs:
                shell.run(block, following=following)
    finally:
        shell.close()


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_no_block_goes_unchecked(block: Block) -> None:
    assert block.language in LANGUAGES
    assert block.needs or block.run_by or block.mark.startswith("prepared") or block.mark in MARKS
    if block.run_by:
        text = (ROOT / block.run_by).read_text(encoding="utf-8")
        assert block.page.name in text, f"{block.run_by} does not know the page"
    if block.language in ("c", "sh"):
        assert block.run_by
    if block.language == "python":
        compile(block.text, str(block), "exec")
    if block.language == "console":
        for command in read_commands(block):
            subprocess.run(["sh", "-nc", command.line], check=True)
            ours = command.line.startswith(("parnet-deploy", "make", "pip"))
            if (ours or block.needs) and block.exit_code != 2:
                check_command(command.line)
    if block.language == "text":
        assert "parnet-deploy " not in block.text, "a command must be in a console block"


def test_a_page_that_is_wrong_is_noticed(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "```console\n$ echo one\ntwo\n```\n\n<!-- exit 1 -->\n```console\nexit 0\n```\n\n"
        "```python\nprint(3)\n```\n\n<!-- prints -->\n```text\n4\n```\n"
    )
    says, ends, prints, printed = read_blocks(page)
    shell = Shell(tmp_path)
    for block, following in ((says, ends), (ends, prints), (prints, printed)):
        with pytest.raises(AssertionError):
            shell.run(block, following=following)


def test_there_are_blocks_that_run() -> None:
    assert sum(block.runs for block in BLOCKS) > 10


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("parnet-deploy biuld", "biuld"),
        ("parnet-deploy build --gpu 0", "--gpu"),
        ("parnet-deploy build --placement fastest", "fastest"),
        ("make dmeo", "dmeo"),
        ("pip install '.[gpus]'", "gpus"),
        ("frobnicate", "frobnicate"),
    ],
)
def test_a_command_that_does_not_exist_is_noticed(line: str, why: str) -> None:
    import click

    with pytest.raises((AssertionError, click.UsageError)) as caught:
        check_command(line)
    assert why in str(caught.value) or why in getattr(caught.value, "option_name", "")


@pytest.mark.parametrize(
    ("expected", "got", "vary", "same"),
    [
        ("a\nb", "a  \nb\n", False, True),
        ("a\n...\nz", "a\nb\nc\nz", False, True),
        ("a\n...\nz", "a\nz", False, True),
        ("a\n...", "b\na", False, False),
        ("took ...", "took 1 ms", False, True),
        ("took ...", "left 1 ms", False, False),
        ("447 of 450", "446 of 450", False, False),
        ("took  0.31 ms   ✓", "took 12.5 ms", True, True),
        ("error 2.6e-07", "error 1e-8", True, True),
        ("took 1 ms", "took 1 s", True, False),
        ("✓ How fast is it? 1 ms", "! How fast is it? 2 ms", True, True),
        ("✓ Is it right? Yes", "! Is it right? Yes", True, False),
    ],
)
def test_what_is_printed_is_compared(expected: str, got: str, vary: bool, same: bool) -> None:
    assert is_printed(expected, got, figures_vary=vary) is same
