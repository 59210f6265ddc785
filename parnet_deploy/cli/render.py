"""How results look: tables and facts on stdout, notes and progress on stderr.

Nothing redraws itself by a clock: the progress line moves only when a step reports, so that what
is being timed is not disturbed.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from rich import box
from rich.cells import cell_len, set_cell_size
from rich.console import Console, RenderableType
from rich.markup import escape
from rich.padding import Padding
from rich.progress import BarColumn, Progress, Task, TextColumn
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text
from rich.theme import Theme

OK, FAILED, NEUTRAL = "✓", "✗", "·"
ARROW = "→"
REDRAW_S = 0.1

_THEME = Theme({"ok": "green", "bad": "red", "warn": "yellow", "key": "dim", "name": "bold cyan"})
_COUNT = re.compile(r"(.*?)\s*(\d+) of (\d+)$")
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


class Output:
    """Where a verb's result, notes and progress go.

    The result is one JSON document or a drawing on stdout; everything else is on stderr, and
    ``quiet`` leaves only errors of that.
    """

    def __init__(self, *, as_json: bool, quiet: bool) -> None:
        self.as_json, self.quiet = as_json, quiet
        self.console = Console(theme=_THEME, highlight=False, soft_wrap=False)
        self._err = Console(theme=_THEME, highlight=False, stderr=True)

    def result(self, document: Mapping[str, Any], *drawing: RenderableType) -> None:
        """Print the result, once per command."""
        if self.as_json:
            click.echo(json.dumps(document, indent=1, allow_nan=False, default=str))
            return
        with self.console.capture() as captured:
            for item in drawing:
                whole = isinstance(item, Text) and bool(item.no_wrap)
                self.console.print(item, crop=False, soft_wrap=whole)
        text = captured.get()
        if not self.console.is_terminal:  # no trailing blanks in files
            text = "\n".join(line.rstrip() for line in text.splitlines()) + "\n"
        click.echo(text, nl=False, color=self.console.is_terminal)

    @property
    def width(self) -> int | None:
        """Columns of the terminal; None where the result goes into a file or pipe."""
        return self.console.width if self.console.is_terminal else None

    def note(self, text: str) -> None:
        """Tell the user something that is not the result."""
        if not self.quiet:
            self._err.print(Text(text, style="dim"), soft_wrap=True)

    def milestone(self, text: str) -> None:
        """Say how far it got where no progress line is drawn: in files and logs."""
        if not self._err.is_terminal:
            self.note(text)

    def problem(self, label: str, text: str) -> None:
        """Report something that went wrong while the rest went on; ``quiet`` does not hide it."""
        line = Text(f"{label}: ", style="warn").append(printable(text), style="default")
        self._err.print(line, soft_wrap=True)

    def log(self, level: str, text: str) -> None:
        """A line of the log."""
        self._err.print(Text(f"{level}: {text}", style="dim"), soft_wrap=True)

    @contextmanager
    def progress(self, title: str) -> Iterator[Callable[[str], None]]:
        """Show a line while a step works; the step calls what this yields with what it is doing.

        A text that ends in "3 of 8" moves a bar. Silent when stderr is no terminal.
        """
        enabled = self._err.is_terminal and not self.quiet
        columns = (
            TextColumn("[name]{task.description}[/]"),
            _Bar(bar_width=24, complete_style="green"),
            TextColumn("{task.fields[doing]}", style="dim"),
        )
        with Progress(
            *columns,
            console=self._err,
            transient=True,
            auto_refresh=False,
            redirect_stdout=False,
            redirect_stderr=False,
            disable=not enabled,
        ) as live:
            task = live.add_task(title, total=None, doing="")
            live.refresh()
            drawn = 0.0

            def report(text: str) -> None:
                nonlocal drawn
                now = time.monotonic()
                count = _COUNT.match(text)
                if not enabled or (count and now - drawn < REDRAW_S):
                    return
                drawn = now
                done, total = (int(count[2]), int(count[3])) if count else (0, None)
                live.update(task, completed=done, total=total, doing=escape(text), refresh=True)

            yield report


class _Bar(BarColumn):
    """A bar only where the end is known."""

    def render(self, task: Task) -> ProgressBar:
        return ProgressBar(width=0) if task.total is None else super().render(task)


def heading(name: str, text: str) -> Text:
    """The first line of a result; never folded, for it holds a path."""
    return unfolded(Text.assemble((printable(name), "name"), "  ", text))


def facts(rows: Iterable[tuple[str, str | Text]]) -> Padding:
    """``grid`` with an empty line above."""
    return spaced(grid(rows))


def grid(rows: Iterable[tuple[str, str | Text]]) -> Table:
    """Names and values, one a line; a value wraps in its own column."""
    found = Table.grid(padding=(0, 2))
    found.add_column(style="key", no_wrap=True)
    found.add_column(overflow="fold")
    for key, value in rows:
        found.add_row(key, value if isinstance(value, Text) else Text(printable(value)))
    return found


def columns(rows: Sequence[Sequence[str]], right: Collection[int], width: int | None) -> Text:
    """Plain columns, one line a row, as wide as they must be; the last is cut to the width.

    Faster than a table for thousands of rows, and never folded: what reads a pipe wants lines.
    """
    widths = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]
    result = Text(no_wrap=True, overflow="ignore")
    for row in rows:
        cells = [
            " " * (w - cell_len(cell)) + cell if i in right else set_cell_size(cell, w)
            for i, (cell, w) in enumerate(zip(row[:-1], widths[:-1], strict=True))
        ]
        line = Text("  ".join(cells) + "  ").append(row[-1], style="key")
        if width is not None:
            line.truncate(width, overflow="ellipsis")
        result.append(line).append("\n")
    result.rstrip()
    return result


def answer_grid() -> Table:
    """Columns for an indent, a label, a probability and a bar."""
    found = Table.grid(padding=(0, 2))
    found.add_column()
    found.add_column(overflow="ellipsis", no_wrap=True)
    found.add_column(justify="right", no_wrap=True)
    found.add_column(no_wrap=True)
    return found


def table(*columns: str) -> Table:
    """A table with a rule under its head. A column's name starts with ">" to align right.

    A name that ends in "~" is wide text, which may wrap; the others never do.
    """
    result = Table(
        box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold", show_edge=False, padding=(0, 1)
    )
    for name in columns:
        result.add_column(
            name.strip(">~"),
            justify="right" if name.startswith(">") else "left",
            no_wrap=not name.endswith("~"),
            overflow="fold" if name.endswith("~") else "ellipsis",
        )
    return result


def marked_grid() -> Table:
    """Columns for a mark, a name and wide text."""
    found = Table.grid(padding=(0, 2, 0, 0))
    found.add_column(no_wrap=True)
    found.add_column(no_wrap=True, min_width=12)
    found.add_column(overflow="fold")
    return found


def spaced(item: RenderableType) -> Padding:
    """With an empty line above."""
    return Padding(item, (1, 0, 0, 0))


def lines(marker: str, style: str, texts: Iterable[str]) -> list[Text]:
    """One line for each text, with a marker before it."""
    return [Text.assemble((f"{marker} ", style), printable(text)) for text in texts]


def next_step(*commands: tuple[str, str]) -> Text:
    """What to type next: commands, each with what it does; never folded, for they are copied."""
    width = max(len(printable(command)) for command, _ in commands)
    result = Text()
    for i, (command, what) in enumerate(commands):
        result.append("      " if i else "next  ", style="key")
        result.append(printable(command).ljust(width) if what else printable(command), style="bold")
        result.append(f"  {what}" if what else "", style="key")
        result.append("\n" if i + 1 < len(commands) else "")
    return unfolded(result)


def unfolded(text: Text) -> Text:
    """Keep each line whole, however wide the terminal is: for paths and what is copied."""
    text.no_wrap, text.overflow = True, "ignore"
    return text


def verdict(passed: bool) -> Text:
    """A mark, green or red."""
    return Text(OK, style="ok") if passed else Text(FAILED, style="bad")


def change(before: object, after: object) -> str:
    """``before -> after``."""
    return f"{before} {ARROW} {after}"


def error_text(value: float) -> str:
    """A relative error."""
    return f"{value:.1e}" if value else "0"


def ms_text(value: float) -> str:
    """Milliseconds with three digits that count."""
    return f"{three_digits(value)} ms"


def three_digits(value: float) -> str:
    """A number with three digits that count, never in powers of ten."""
    digits = 3 if value < 1 else 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:.{digits}f}"


def bytes_text(value: float) -> str:
    """A file's size."""
    for unit in _UNITS[:-1]:
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} {_UNITS[-1]}"


def percent_text(share: float) -> str:
    """A share in percent, two decimals."""
    return f"{100 * share:.2f} %"


def moment(text: str) -> str:
    """Month, day and minute of an ISO time."""
    return printable(text)[5:16].replace("T", " ")


def printable(text: str | Path) -> str:
    """The text without characters that would steer the terminal: names of files are not ours."""
    return "".join(c if c.isprintable() else "?" for c in str(text))
