"""The verb ``doctor``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from rich.console import RenderableType
from rich.text import Text

from . import render
from .options import Common, verb

if TYPE_CHECKING:
    from ..doctor.finding import Finding

_EPILOG = """\b
Examples:
  parnet-deploy doctor
  parnet-deploy doctor --deep --strict

\b
JSON: version, findings (group, name, status: ok, absent,
missing or warning, detail, fix).

\b
Exit code 3 with --strict if anything is missing or warned of.
"""
_URGENCY = ("missing", "warning", "absent", "ok")  # in which order fixes are told
_MARKS = {
    "ok": (render.OK, "ok"),
    "absent": (render.NEUTRAL, "key"),
    "missing": (render.FAILED, "bad"),
    "warning": ("!", "warn"),
}


@click.command(epilog=_EPILOG)
@click.option("--deep", is_flag=True, help="Open every plan of every deployment in --root, too.")
@click.option("--strict", is_flag=True, help="Exit with 3 if anything is missing or warned of.")
@verb
def command(common: Common, deep: bool, strict: bool) -> None:
    """Show what this machine can run, why not the rest, and how to get it.

    Nothing is changed. Without --strict the exit code is 0 whatever is found.
    """
    from .. import __version__
    from ..doctor.findings import examine

    with common.output.progress("doctor") as report:
        report("looking around")
        findings = list(examine(common.root, deep=deep))
    document = {"version": __version__, "findings": [found.to_json() for found in findings]}
    common.output.result(document, *_draw(findings, __version__))
    if strict and any(found.status in ("missing", "warning") for found in findings):
        raise click.exceptions.Exit(3)


def _draw(findings: list[Finding], version: str) -> list[RenderableType]:
    items: list[RenderableType] = [render.heading("parnet-deploy", version)]
    for group in dict.fromkeys(found.group for found in findings):
        grid = render.marked_grid()
        for found in findings:
            if found.group == group:
                mark = Text(*_MARKS[found.status])
                grid.add_row(mark, found.name, Text(render.printable(found.detail)))
        items += ["", Text(group, style="bold"), grid]
    order = list(_URGENCY)
    fixes = sorted(
        (found for found in findings if found.fix), key=lambda found: order.index(found.status)
    )
    if fixes:
        grid = render.marked_grid()
        for found in fixes:
            mark = Text(*_MARKS[found.status])
            grid.add_row(mark, found.name, Text(render.printable(found.fix or "")))
        items += ["", Text("what to do", style="bold"), grid]
    missing = [f for f in findings if f.group.startswith("packages") and f.status == "missing"]
    ready = [f.name for f in findings if f.group == "backends" and f.status == "ok"]
    if not missing and ready:
        verdict = Text(f"Every verb works here. Backends: {', '.join(ready)}.", style="ok")
    else:
        verdict = Text("Some verbs do not work here; see above.", style="warn")
    return [*items, "", verdict]
