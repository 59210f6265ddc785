"""``verify --bisect``: where each plan leaves its reference, if it does."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import RenderableType
from rich.text import Text

from ..plan import asked_backend
from . import render
from .chain import needs
from .options import Common

if TYPE_CHECKING:
    from ..builder.bisect.bisect import Bisection


def bisect_plans(common: Common, directory: Path, plans: tuple[str, ...]) -> None:
    """Bisect the plans, or all that are not simulated, and say what was found.

    Raises:
        click.exceptions.Exit: With 3, if a plan leaves its reference.
    """
    from ..runtime.choose import order_plans
    from ..signing.trust import open_trusted

    with needs("export"):
        from ..builder.bisect.bisect import bisect_plan
    with common.output.progress("bisect") as report:
        opened = open_trusted(directory)
        found = {
            key: bisect_plan(opened, key, on_stage=report) for key in plans or order_plans(opened)
        }
    document = {
        "deployment": str(directory),
        "name": directory.name,
        "plans": {key: bisection.to_json() for key, bisection in found.items()},
    }
    common.output.result(document, *_draw(common, directory, found))
    if any(found.values()):
        raise click.exceptions.Exit(3)


def _draw(common: Common, directory: Path, found: Mapping[str, Bisection]) -> list[RenderableType]:
    items: list[RenderableType] = [
        render.heading(directory.name, f"bisected, in {render.printable(directory)}")
    ]
    for key, bisection in found.items():
        items += ["", Text.assemble((f"{key}: ", "bold"), render.printable(sentence(bisection)))]
        rows = _rows(bisection)
        if rows:
            items.append(render.facts(rows))
    bad = [key for key, bisection in found.items() if bisection]
    name = common.argument(directory)
    if bad:
        backend = asked_backend(bad[0], found[bad[0]].backend)
        again = f"parnet-deploy build {name} --backend {backend} --rebuild"
        step = render.next_step((again, "make the engine again from its graph"))
    else:
        step = render.next_step((f"parnet-deploy bench {name}", "how fast, beside what"))
    return [*items, "", step]


def sentence(found: Bisection) -> str:
    """What was found, in one sentence."""
    if not found:
        worst = max(check.error for check in (*found.engines, *found.whole))
        return (
            f"no difference found: {len(found.engines)} engine outputs and the whole are within "
            f"the limit, the largest error is {render.error_text(worst)}."
        )
    if found.engine is None:
        return "every engine alone is right, and the whole is not: look at copies and their order."
    if found.layer is None or found.part is None:
        inside = (
            "none of its layers is" if found.part is None else f"{found.part} is where it begins"
        )
        return f"engine {found.engine} is wrong, and {inside}."
    cause = "its graph was changed" if found.differs else "its graph is right, the kernel is not"
    return f"{found.part} leaves the reference at {found.layer.name} ({found.layer.op}): {cause}."


def _rows(found: Bisection) -> list[tuple[str, str | Text]]:
    if not found:
        return []
    rows: list[tuple[str, str | Text]] = []
    if found.engine is not None:
        rows.append(("engine", found.engine))
    if found.part is not None:
        rows.append(("part", found.part))
    if found.layer is not None:
        rows.append(("block", found.layer.block))
        rows.append(("tensor", found.layer.output))
    if found.error is not None and found.limit is not None:
        rows.append(("error", f"{render.error_text(found.error)}, limit {found.limit:.0e}"))
    if found.method is not None:
        rows.append(("found by", found.method))
    rows += [("differs", render.printable(text)) for text in found.differs]
    return rows
