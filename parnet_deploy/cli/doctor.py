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
Example:
  parnet-deploy doctor

\b
JSON: version, findings (group, name, status: ok, absent,
missing or warning, detail, fix).
"""
_MARKS = {
    "ok": (render.OK, "ok"),
    "absent": (render.NEUTRAL, "key"),
    "missing": (render.FAILED, "bad"),
    "warning": ("!", "warn"),
}


@click.command(epilog=_EPILOG)
@verb
def command(common: Common) -> None:
    """Show what this machine can run, why not the rest, and how to get it.

    Nothing is changed. The exit code is 0 whatever is found.
    """
    from .. import __version__
    from ..doctor.findings import examine

    with common.output.progress("doctor") as report:
        report("looking around")
        findings = list(examine(common.root))
    document = {"version": __version__, "findings": [found.to_json() for found in findings]}
    common.output.result(document, *_draw(findings, __version__))


def _draw(findings: list[Finding], version: str) -> list[RenderableType]:
    items: list[RenderableType] = [render.heading("parnet-deploy", version)]
    for group in dict.fromkeys(found.group for found in findings):
        grid = render.marked_grid()
        for found in findings:
            if found.group == group:
                mark = Text(*_MARKS[found.status])
                grid.add_row(mark, found.name, Text(render.printable(found.detail)))
        items += ["", Text(group, style="bold"), grid]
    fixes = [found for found in findings if found.fix]
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
