"""The pages of the documentation, and the blocks of code in them.

What becomes of a block is decided by its language and by the comment in front of it:

    ```console  commands, run in their order. If the first starts with "$ ", what follows each is
                what it prints; a line "..." stands for any lines.
    ```python   run by itself.
    ```text     nothing to run: a picture or a layout, or what the program in front of it prints.
    <!-- figures vary -->           what is printed may have other figures
    <!-- prints -->                 this text is what the program in front of it prints
    <!-- exit 1 -->                 its commands end with this code
    <!-- needs: a GPU -->           cannot run here: its commands, verbs and options must exist
    <!-- run by: tests/x/test_y.py -->    that test runs it
    <!-- prepared: engines/digits -->     (anywhere) the page starts with this deployment built
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    *sorted(path for path in (ROOT / "docs").rglob("*.md") if "_build" not in path.parts),
]

_BLOCK = re.compile(r"^(?:<!-- ([^\n]*?) -->\n+)?```([^\n]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_PREPARED = re.compile(r"<!-- prepared: engines/(\S+) -->")


@dataclass(frozen=True, kw_only=True)
class Block:
    """One fenced block. ``mark`` is the comment in front of it, or nothing."""

    page: Path
    line: int
    language: str
    mark: str
    text: str

    def __str__(self) -> str:
        page = self.page.relative_to(ROOT) if self.page.is_relative_to(ROOT) else self.page
        return f"{page}:{self.line}"

    @property
    def needs(self) -> str | None:
        """Why it cannot run here."""
        return self.mark.removeprefix("needs: ") if self.mark.startswith("needs: ") else None

    @property
    def run_by(self) -> str | None:
        """The test that runs it."""
        return self.mark.removeprefix("run by: ") if self.mark.startswith("run by: ") else None

    @property
    def exit_code(self) -> int:
        """What its commands must return."""
        return int(self.mark.removeprefix("exit ")) if self.mark.startswith("exit ") else 0

    @property
    def runs(self) -> bool:
        """Whether the page's own test runs it."""
        return not self.needs and not self.run_by and self.language in ("console", "python")


@dataclass(frozen=True, kw_only=True)
class Command:
    """One command of a console block, and what the page says it prints; None: nothing is said."""

    line: str
    prints: str | None


def read_blocks(page: Path) -> list[Block]:
    """All blocks of a page, in their order; directives of the site generator are none."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(
            page=page,
            line=text.count("\n", 0, match.start(2)) + 1,
            language=match[2],
            mark=match[1] or "",
            text=match[3],
        )
        for match in _BLOCK.finditer(text)
        if not match[2].startswith("{")
    ]


def prepared(page: Path) -> str | None:
    """Name of the deployment that the page starts with."""
    match = _PREPARED.search(page.read_text(encoding="utf-8"))
    return match[1] if match else None


def read_commands(block: Block) -> list[Command]:
    """The commands of a console block; a comment behind one is not part of it."""
    text = block.text.replace("\\\n", " ")
    if not text.startswith("$ "):
        lines = (re.sub(r"(^|\s+)#.*$", "", line) for line in text.splitlines())
        return [Command(line=line, prints=None) for line in lines if line.strip()]
    found = []
    for piece in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        line, _, printed = piece.partition("\n")
        found.append(Command(line=line, prints=printed.strip("\n")))
    return found
