"""The verb ``export``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click
from rich.console import RenderableType
from rich.text import Text

from ..errors import SpecError
from ..input_size import InputSize
from . import render
from .chain import needs
from .options import Common, deployment_argument, verb

if TYPE_CHECKING:
    from ..spec import ModelSpec
    from ..steps import StepResult

_EPILOG = """\b
Examples:
  parnet-deploy export
  parnet-deploy export digits --input-size 64
  parnet-deploy export parnet-s --dynamic-size 192:256

\b
JSON: deployment, name, skipped, report (input_size, opset, parts, checks, reference).
"""


@click.command(epilog=_EPILOG)
@deployment_argument
@click.option("--input-size", metavar="HxW", help="The one size of images, such as 224 or 224x320.")
@click.option("--dynamic-size", metavar="LO:HI", help="A range of sizes, such as 192:256.")
@verb
def command(
    common: Common, deployment: str | None, input_size: str | None, dynamic_size: str | None
) -> None:
    """Write one ONNX graph per part of the network, each proved on ONNX Runtime.

    The batch is dynamic. The image size is the training's unless you say otherwise; one size is
    faster than a range.
    """
    size = _size(input_size, dynamic_size)
    directory = common.find(deployment)
    with common.output.progress(f"export {directory.name}") as report:
        report("loading PyTorch")
        with needs("export"):
            from ..export.export_step import export_to_deployment
        result = export_to_deployment(directory, size, on_part=lambda p: report(f"proved {p}"))
    document = {
        "deployment": str(directory),
        "name": directory.name,
        "skipped": result.skipped,
        "report": result.report,
    }
    from ..deployment import Deployment

    spec = Deployment.open(directory).spec
    common.output.result(document, *_draw(common, result, spec))


def _size(fixed: str | None, dynamic: str | None) -> InputSize | None:
    if fixed is not None and dynamic is not None:
        raise click.UsageError("Give --input-size or --dynamic-size, not both.")
    text = fixed if fixed is not None else dynamic
    if text is None:
        return None
    size = InputSize.parse(text)
    if fixed is not None and not size.fixed:
        raise SpecError(f"--input-size: got {fixed}, expected one size. Use --dynamic-size.")
    return size


def _worst(checks: Sequence[Mapping[str, Any]], each: int) -> list[Mapping[str, Any]]:
    """Of several sizes the worst check of each part, and of the whole network."""
    return [max(checks[i::each], key=lambda check: check["error"]) for i in range(each)]


def _draw(common: Common, result: StepResult, spec: ModelSpec) -> list[RenderableType]:
    report = result.report
    how = "unchanged, nothing to do" if result.skipped else "exported and proved"
    *parts, whole = _worst(report["checks"], len(spec.parts) + 1)
    found = render.table("part", "reads", "writes", ">nodes", ">error", "")
    for part, check in zip(spec.parts, parts, strict=True):
        found.add_row(
            part.name,
            ", ".join(part.inputs),
            part.output,
            str(report["parts"][part.name]),
            render.error_text(check["error"]),
            render.verdict(check["passed"]),
        )
    found.add_section()
    nodes = str(sum(report["parts"].values()))
    error = render.error_text(whole["error"])
    found.add_row("whole", "image", "logits", nodes, error, render.verdict(whole["passed"]))
    return [
        render.heading(result.path.name, f"{how}, in {render.printable(result.path / 'onnx')}"),
        render.facts(
            [
                ("images", report["input_size"]),
                ("reference", report["reference"]),
                ("opset", str(report["opset"])),
            ]
        ),
        render.spaced(found),
        "",
        Text(
            f"parts on ONNX Runtime against PyTorch; limit {whole['tolerance']:.0e} of the largest "
            "value",
            style="key",
        ),
        "",
        render.next_step(
            (f"parnet-deploy build {common.argument(result.path)}", "engines for this machine")
        ),
    ]
