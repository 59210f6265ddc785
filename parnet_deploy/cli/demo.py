"""The verb ``demo``."""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from pathlib import Path

import click
from rich.console import RenderableType
from rich.text import Text

from ..errors import CheckFailedError, DeploymentError, DeploymentNotFoundError, InputError
from . import render
from .chain import needs
from .demo_steps import CHECKPOINT, EVAL, LABELS, NOISY, Row, list_steps
from .options import Common, verb

NAME = "digits"

_EPILOG = """\b
Examples:
  parnet-deploy demo
  parnet-deploy demo --data ~/parnet_deploy --root /tmp/engines

\b
JSON: deployment, passed, seconds, steps (step, what, result, passed, kept, seconds,
details).

\b
Exit code 3 if the deployment answers anything else than the trained network.
"""


@click.command(epilog=_EPILOG)
@click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="A checkout of the repository, which holds the checkpoint and the images.",
)
@verb
def command(common: Common, data: Path | None) -> None:
    """Show the whole job on real input: a small trained ParNet and 1,800 real images.

    Fuses, exports, builds and verifies it in ROOT/digits, classifies the images with the trained
    network and with the engines, which must agree on every one, and times both.
    """
    place = find_data(data)
    directory = common.root / NAME
    _check_free(directory, place / CHECKPOINT)
    started = time.perf_counter()
    rows: list[Row] = []
    with common.output.progress("demo") as report:
        report("loading PyTorch")
        with needs("export"):
            steps = list_steps(directory, place, report)
        for number, (name, step) in enumerate(steps.items(), 1):
            report(name)
            began = time.perf_counter()
            row = step()
            seconds = time.perf_counter() - began
            rows.append(replace(row, seconds=seconds))
            common.output.milestone(f"{number}/{len(steps)} {name}, {seconds:.1f} s")
    seconds = time.perf_counter() - started
    failed = [row.step for row in rows if row.passed is False]
    document = {
        "deployment": str(directory),
        "passed": not failed,
        "seconds": seconds,
        "steps": [asdict(row) for row in rows],
    }
    common.output.result(document, *_draw(common, directory, rows, seconds))
    if failed:
        raise CheckFailedError(
            f"demo: {', '.join(failed)}: the engines answer otherwise than the trained network."
        )


def find_data(given: Path | None) -> Path:
    """Where the checkpoint and the images are.

    Raises:
        InputError: They are not there; the wheel does not hold them.
    """
    places = [given] if given is not None else [Path(__file__).parents[2], Path.cwd()]
    for place in places:
        if all((place / path).exists() for path in (CHECKPOINT, LABELS, EVAL, NOISY)):
            return place
    raise InputError(
        f"demo data: got no {CHECKPOINT} or {EVAL} in {places[0]}, expected a checkout of the "
        "parnet_deploy repository (an installed package does not hold them). Clone it, and run: "
        "parnet-deploy demo --data DIR."
    )


def _check_free(directory: Path, checkpoint: Path) -> None:
    """Never take over somebody's own deployment that happens to have the demo's name."""
    from ..deployment import Deployment
    from ..storage.files import hash_file

    try:
        there = Deployment.open(directory).source.get("sha256")
    except DeploymentNotFoundError:
        return
    if there != hash_file(checkpoint)[0]:
        raise DeploymentError(
            f"demo: {directory}: got a deployment of another checkpoint, expected none or the "
            "demo's. Run: parnet-deploy demo --root DIR."
        )


def _draw(common: Common, directory: Path, rows: list[Row], seconds: float) -> list[RenderableType]:
    found = render.table("step", "what~", "result", "", ">s")
    for row in rows:
        mark = Text(render.NEUTRAL) if row.passed is None else render.verdict(row.passed)
        spent = "kept" if row.kept else f"{row.seconds:.1f}"
        found.add_row(row.step, row.what, row.result, mark, spent)
    name = common.argument(directory)
    if all(row.passed is not False for row in rows):
        text = f"Fused, built and proved in {seconds:.0f} s: every answer is the same."
        ending = Text(text, style="ok")
    else:
        ending = Text("The engines do not answer as the trained network does.", style="bad")
    where = render.printable(directory)
    kept = any(row.kept for row in rows)
    note = [Text("kept: nothing has changed since the last demo", style="key")]
    return [
        render.heading("demo", f"a trained ParNet on real handwritten digits, in {where}"),
        render.spaced(found),
        *(note if kept else []),
        "",
        ending,
        "",
        render.next_step(
            (f"parnet-deploy inspect {name}", "what is in it"),
            (f"parnet-deploy bench {name}", "the figures in full"),
            (f"parnet-deploy serve {name}", "answer other programs, and a page to try it"),
            ("parnet-deploy fuse model.pt", "the same with your checkpoint"),
        ),
    ]
