"""How a benchmark ended, on the terminal: the verdict, then the tables of the report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from . import render

if TYPE_CHECKING:
    from ..bench.report.answer import Verdict
    from ..bench.report.tables import Rows
    from ..bench.result import BenchReport

_ANY = 10_000
_MARKS = {
    "good": (render.OK, "ok"),
    "care": ("!", "warn"),
    "bad": (render.FAILED, "bad"),
    "none": (render.NEUTRAL, "key"),
}


def draw(
    report: BenchReport, evidence: Mapping[str, Any] | None = None, *, page: Path | None = None
) -> list[RenderableType]:
    """Everything that the terminal shows of a report.

    Args:
        report: What was measured.
        evidence: What the other steps found.
        page: Where the HTML report is, if it was written.
    """
    from ..bench.report import tables
    from ..bench.report.verdict import conclude

    verdict = conclude(report, evidence)
    items: list[RenderableType] = [_heading(report), "", *_answers(verdict)]
    every: list[tuple[Rows, ...]] = [
        (tables.latency_rows(report, mode), tables.latency_rows(report, mode, brief=True))
        for mode in report["rounds"]
    ]
    every += [(tables.cost_rows(report),), (tables.split_rows(report),)]
    every += [(tables.part_rows(report),), *((tables.curve_rows(c),) for c in report["curves"])]
    for choices in every:
        items += ["", FittingTable(*choices)] if choices[0].rows else []
    notes = [(name, arm["note"]) for name, arm in tables.ours_first(report).items()]
    items.append(render.facts([("machine", machine_text(report["environment"])), *notes]))
    warnings = [f"{name} was left out: {why}" for name, why in report["left_out"].items()]
    items += [*([""] if warnings else []), *render.lines("!", "warn", warnings)]
    steps = [(step.command, step.why) for step in verdict.steps]
    steps += [] if page is None else [(str(page), "the whole report, for a browser")]
    return [*items, "", *_next(steps)]


def machine_text(environment: Mapping[str, Any]) -> str:
    """The machine in one line."""
    packages = environment["packages"]
    versions = ", ".join(f"{name} {packages[name]}" for name in sorted(packages))
    load = environment["load_average"]
    busy = f", load {load[0]}" if load else ""
    return f"{environment['cpu']}, {environment['cores_usable']} cores{busy}; {versions}"


def _heading(report: BenchReport) -> Text:
    from ..bench.report.words import size_text

    subject = report["subject"]
    rounds = ", ".join(f"{count} rounds {mode}" for mode, count in report["rounds"].items())
    about = f"{rounds}, batch {subject['batch']}, {size_text(subject['input_size'])}"
    return render.heading(subject["name"], about)


def _answers(verdict: Verdict) -> Iterator[RenderableType]:
    yield from render.lines("!", "warn", verdict.care)
    if verdict.care:
        yield ""
    found = Table.grid(padding=(0, 1, 0, 0))
    found.add_column(no_wrap=True)
    found.add_column(overflow="fold")
    for answer in verdict.answers:
        mark, style = _MARKS[answer.mood]
        said = Text(f"{answer.question} ", style="key")
        said.append(render.printable(answer.text), style="bold not dim")
        said.append(render.printable("".join(f" {text}" for text in answer.more)))
        found.add_row(Text(mark, style=style), said)
    yield found


def _next(steps: list[tuple[str, str]]) -> Iterator[RenderableType]:
    """Commands on lines of their own, never folded, for they are copied; below each, why."""
    for number, (command, why) in enumerate(steps):
        start = "      " if number else "next  "
        said = Text.assemble((start, "key"), (render.printable(command), "bold"))
        yield render.unfolded(said)
        yield Padding(Text(render.printable(why), style="key"), (0, 0, 0, 6))


class FittingTable:
    """A table as wide as the terminal. A file or a pipe is 80 columns wide.

    Of several choices the first that fits is drawn. If none does, it is the last, in portions one
    below the other; the first column stands in each of them.
    """

    def __init__(self, *choices: Rows) -> None:
        self._choices = choices

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for rows in self._choices:
            portions = _portions(rows, console, options)
            if len(portions) == 1:
                break
        caption = Text(render.printable(rows.caption), style="key")
        yield Group(caption, *(_draw_columns(rows, columns) for columns in portions))


def _portions(rows: Rows, console: Console, options: ConsoleOptions) -> list[list[int]]:
    """Columns by table: as many as fit, the first always, one more at least."""
    found: list[list[int]] = []
    taken = [0]
    for column in range(1, len(rows.heads)):
        wider = _draw_columns(rows, [*taken, column])
        needed = Measurement.get(console, options.update(max_width=_ANY), wider).maximum
        if len(taken) > 1 and needed > options.max_width:
            found.append(taken)
            taken = [0]
        taken.append(column)
    return [*found, taken]


def _draw_columns(rows: Rows, columns: list[int]) -> Table:
    heads = [(">" if i in rows.numbers else "") + rows.heads[i] for i in columns]
    found = render.table(*heads)
    for row in rows.rows:
        found.add_row(*(Text(render.printable(row[i])) for i in columns))
    return found
