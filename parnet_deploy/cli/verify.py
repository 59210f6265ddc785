"""The verb ``verify``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import RenderableType

from . import render
from .chain import ensure_built, needs
from .options import Common, deployment_argument, verb

if TYPE_CHECKING:
    from ..builder.verify_step import Images, Network
    from ..deployment import Deployment
    from ..steps import StepResult

_EPILOG = """\b
Examples:
  parnet-deploy verify
  parnet-deploy verify digits --plan onnxruntime-fp32-auto
  parnet-deploy verify digits --images calibration/digits/eval
  parnet-deploy verify digits --bisect

\b
JSON: deployment, name, skipped, images (count, compared, why_not), report (artifacts,
not_compared: plans that images say nothing about, plans: per
plan its checks with error, tolerance, passed). With --bisect: deployment, name, plans (by key:
found, engine, part, layer (name, op, block, output), error, limit, method, differs, engines,
whole).

\b
Exit code 3 if an engine gives another answer than the trained network.
"""


@click.command(epilog=_EPILOG)
@deployment_argument
@click.option("--plan", "plans", metavar="KEY", multiple=True, help="Only this plan; repeatable.")
@click.option(
    "--images",
    type=click.Path(path_type=Path),
    multiple=True,
    help="Images, or a folder, that the trained network answers too; repeatable.",
)
@click.option(
    "--bisect",
    is_flag=True,
    help="Find the first part and layer where an engine leaves the reference. Saves nothing.",
)
@verb
def command(
    common: Common,
    deployment: str | None,
    plans: tuple[str, ...],
    images: tuple[Path, ...],
    bisect: bool,
) -> None:
    """Hold every built engine against the trained network again.

    Each engine alone, the whole alone and inside a batch, on the stored reference; with --images
    also every image, where the same top answer is required.
    """
    if bisect and images:
        raise click.UsageError("--bisect compares on the stored reference: leave out --images.")
    directory = common.find(deployment)
    if not plans:
        ensure_built(directory, common.output)
    if bisect:
        from .bisect import bisect_plans

        bisect_plans(common, directory, plans)
        return
    with needs("export"):
        from ..builder.verify_step import verify_to_deployment
    with common.output.progress("verify") as report:
        arrays = load_images(directory, images)
        trained, why_not = load_trained(directory) if images else (None, None)
        result = verify_to_deployment(
            directory, plans=plans or None, images=arrays, trained=trained, on_stage=report
        )
    lower = result.report["not_compared"]
    document = {
        "deployment": str(directory),
        "name": directory.name,
        "skipped": result.skipped,
        "images": {
            "count": 0 if arrays is None else len(arrays),
            "compared": trained is not None and arrays is not None and not lower,
            "why_not": why_not or _lower_text(lower),
        },
        "report": result.report,
    }
    common.output.result(document, *_draw(common, result, why_not or _lower_text(lower)))


def _lower_text(plans: Sequence[str]) -> str | None:
    """Why images say nothing about plans in lower precision."""
    if not plans:
        return None
    text = f"{', '.join(plans)}: in lower precision, where single answers may differ"
    if any("-bf16-" in plan for plan in plans):
        text += "; how often in bfloat16, parnet-deploy run IMAGES --plan KEY tells"
    if any("-bf16-" not in plan for plan in plans):
        text += "; what its gates found on images is in reports/precision-*.html"
    return text


def load_images(directory: Path, paths: Sequence[Path]) -> Images | None:
    """All images, prepared as in training: (N, C, H, W)."""
    if not paths:
        return None
    import numpy as np

    from ..preprocess import Preprocessing, find_images, load_image
    from ..signing.trust import open_trusted

    preprocessing = Preprocessing.from_json(open_trusted(directory).preprocessing or {})
    return np.stack([load_image(path, preprocessing) for path in find_images(paths)])


def load_trained(directory: Path) -> tuple[Network | None, str | None]:
    """The network in training form, or why it cannot be had."""
    from ..deployment import Deployment
    from ..errors import MissingExtraError

    opened: Deployment = Deployment.open(directory)
    try:
        with needs("export"):
            from ..export.baselines import torch_arm
            from ..export.trained import training_form
    except MissingExtraError as error:
        return None, str(error)
    model = training_form(opened)
    if model is None:
        return None, f"the checkpoint {opened.source['path']} is gone or was changed"
    return torch_arm(model).run, None


def _draw(common: Common, result: StepResult, why_not: str | None) -> list[RenderableType]:
    plans: Mapping[str, Sequence[Mapping[str, Any]]] = result.report["plans"]
    found = render.table("plan", "compared~", ">error", ">limit", "")
    for key, checks in plans.items():
        engines = [check for check in checks if check["what"].startswith("engine ")]
        rest = [check for check in checks if check not in engines]
        worst = max(engines, key=lambda check: float(check["error"]))
        several = f"{len(engines)} engine outputs, each alone"
        rows = [{**worst, "what": several if len(engines) > 1 else "the engine alone"}, *rest]
        for i, check in enumerate(rows):
            found.add_row(
                "" if i else key,
                check["what"],
                render.error_text(check["error"]),
                f"{check['tolerance']:.0e}",
                render.verdict(check["passed"]),
            )
        found.add_section()
    items: list[RenderableType] = [
        render.heading(result.path.name, f"verified, in {render.printable(result.path)}"),
        render.facts([("files", f"{result.report['artifacts']}, all unchanged")]),
        render.spaced(found),
        "",
    ]
    if why_not:
        items += [*render.lines("!", "warn", [f"images were not compared: {why_not}"]), ""]
    name = common.argument(result.path)
    return [*items, render.next_step((f"parnet-deploy bench {name}", "how fast, beside what"))]
