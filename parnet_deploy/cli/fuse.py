"""The verb ``fuse``."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from ..errors import SpecError
from ..input_size import InputSize
from ..spec import ACTIVATIONS, ModelSpec
from ..storage.names import is_plan_key
from . import render
from .chain import needs
from .options import Common, numbers_option, verb

if TYPE_CHECKING:
    from ..steps import StepResult

_SUFFIXES = re.compile(r"(\.(pth|pt|tar|ckpt|bin|safetensors))+$", re.IGNORECASE)
_ILLEGAL = re.compile(r"[^A-Za-z0-9._+=@,-]+")

_EPILOG = """\b
Examples:
  parnet-deploy fuse model.pt
  parnet-deploy fuse parnet-s.pth.tar --weights ema --labels imagenet.txt
  parnet-deploy fuse model.pt --size 256 --mean 0.5,0.5,0.5 --std 0.5,0.5,0.5

\b
JSON: deployment, name, skipped, report (source, spec, proof, totals, weights, batch_norms,
preprocessing); the report is also in DEPLOYMENT/reports/fuse.json.
"""


@click.command(epilog=_EPILOG)
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option("--name", help="Name of the deployment.  [default: the file's name, no suffixes]")
@click.option(
    "--weights",
    type=click.Choice(["auto", "model", "ema"]),
    default="auto",
    show_default=True,
    help="Which weights of the file; auto takes the averaged ones (EMA) if they are there.",
)
@click.option(
    "--activation", type=click.Choice(ACTIVATIONS), help="Overrides what the weights tell."
)
@click.option(
    "--labels",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Names of the classes, one a line.",
)
@numbers_option("--mean", float, count=3, metavar="R,G,B", help="For pixels in 0..1.")
@numbers_option("--std", float, count=3, metavar="R,G,B", help="For pixels in 0..1.")
@click.option("--size", metavar="HxW", help="Image size, for example 224 or 224x320.")
@click.option(
    "--resize", type=click.Choice(["shortest-edge", "stretch"]), help="Keep the shape, or not."
)
@click.option(
    "--interpolation",
    type=click.Choice(["nearest", "bilinear", "bicubic"]),
    help="Filter of the resize.",
)
@click.option("--crop-fraction", type=float, help="Share of the resized image that is kept.")
@click.option("--full", is_flag=True, help="Show every block, not one line per part.")
@verb
def command(
    common: Common,
    checkpoint: Path,
    name: str | None,
    weights: str,
    activation: str | None,
    labels: Path | None,
    full: bool,
    size: str | None,
    **images: Any,
) -> None:
    """Fuse a trained CHECKPOINT and prove that the answer did not change.

    Every BatchNorm goes into its convolution, in float64; every block and the whole network are
    compared with the training form. If one differs, nothing is written and the exit code is 3.

    How images are prepared is taken from the checkpoint's training arguments where they say;
    the options on mean, std, size, resize, interpolation and crop override single values.
    """
    directory = common.root / _name(name, checkpoint)
    changes = {key: value for key, value in images.items() if value is not None} | _size(size)
    started = time.perf_counter()
    with common.output.progress(f"fuse {directory.name}") as report:
        report("loading PyTorch")
        with needs("export"):
            from ..export.fuse_step import FuseOptions, fuse_to_deployment
        from ..preprocess import read_labels

        options = FuseOptions(
            weights=weights,  # type: ignore[arg-type]  # one of the choices
            activation=activation,  # type: ignore[arg-type]
            labels=None if labels is None else read_labels(labels),
            image_options=changes,
        )
        result = fuse_to_deployment(
            checkpoint, directory, options, on_block=lambda block: report(f"proved {block}")
        )
    document = {
        "deployment": str(directory),
        "name": directory.name,
        "skipped": result.skipped,
        "report": result.report,
    }
    seconds = time.perf_counter() - started
    common.output.result(document, *_draw(common, result, seconds=seconds, full=full))


def _name(given: str | None, checkpoint: Path) -> str:
    name = given or _ILLEGAL.sub("-", _SUFFIXES.sub("", checkpoint.name)).strip(".-")
    if given is None and not name:
        raise click.UsageError(
            f"The file name {checkpoint.name} has no letters or digits that a deployment could be "
            "named by. Give it one: --name NAME."
        )
    if not is_plan_key(name):
        raise click.BadParameter(
            f"got {name!r}, expected up to 200 of a-z, A-Z, 0-9 and . _ + = @ , - "
            "(use --root for a folder).",
            param_hint="--name",
        )
    return name


def _size(text: str | None) -> dict[str, int]:
    if text is None:
        return {}
    size = InputSize.parse(text)
    if not size.fixed:
        raise SpecError(f"--size: got the range {text}, expected one size, for example 224x320.")
    return {"height": size.low[0], "width": size.low[1]}


def _draw(
    common: Common, result: StepResult, *, seconds: float, full: bool
) -> list[RenderableType]:
    report, source = result.report, result.report["source"]
    spec = ModelSpec.from_json(report["spec"])
    how = "unchanged, nothing to do" if result.skipped else f"fused and proved in {seconds:.1f} s"
    notes = [note for note in source["notes"] if note != source["activation"]["warning"]]
    warnings = [source["activation"]["warning"], *(w["warning"] for w in report["weights"])]
    warnings = [text for text in warnings if text]
    health = [] if warnings else [f"{len(report['weights'])} weight tensors: no warning"]
    items: list[RenderableType] = [
        render.heading(result.path.name, f"{how}, in {render.printable(result.path)}"),
        render.facts(
            [
                ("checkpoint", f"{source['path']} ({source['layout']}, {source['sha256'][:12]})"),
                ("network", network_text(spec, source["parameters"])),
                ("weights", source["weights"]),
                *(("", note) for note in notes),
                ("activation", activation_text(source["activation"])),
                ("images", images_text(report["preprocessing"])),
                *(("health", text) for text in health),
            ]
        ),
        *_proof(spec, report, full=full),
        "",
        *render.lines("!", "warn", warnings),
        *([""] if warnings else []),
        render.next_step(
            (f"parnet-deploy build {common.argument(result.path)}", "engines for this machine")
        ),
    ]
    return items


def _proof(spec: ModelSpec, report: Mapping[str, Any], *, full: bool) -> list[RenderableType]:
    """One line per part (or block): operations before and after, worst errors, what stayed."""
    blocks = {proof["block"]: proof for proof in report["proof"]["blocks"]}
    marks: dict[str, str] = {}
    for proof in blocks.values():
        marks.setdefault(proof["stayed"], "abcdefgh"[len(marks)])
    first = ("block",) if full else ("part", ">blocks")
    found = render.table(*first, ">ops", ">convs", ">BatchNorms", ">float64", ">float32", "stays")
    for part in spec.parts:
        mine = [blocks[block.name] for block in part.blocks]
        rows = [[proof] for proof in mine] if full else [mine] if mine else []
        for row in rows:
            stays = " ".join(sorted({marks[proof["stayed"]] for proof in row}))
            name = (row[0]["block"],) if full else (part.name, str(len(row)))
            _add(found, name, row, stays)
    found.add_section()
    whole = report["proof"]
    name = ("whole",) if full else ("whole", str(len(blocks)))
    _add(found, name, list(blocks.values()), "", whole["float64"], whole["float32"])
    notes = [Text(f"{mark}  {text}", style="key") for text, mark in marks.items()]
    limits = f"errors are of the largest value; limits {whole['float64']['tolerance']:.0e} and "
    notes.append(Text(f"{limits}{whole['float32']['tolerance']:.0e}", style="key"))
    return [render.spaced(found), "", *notes]


def _add(
    found: Table,
    name: tuple[str, ...],
    proofs: list[Mapping[str, Any]],
    stays: str,
    float64: Mapping[str, Any] | None = None,
    float32: Mapping[str, Any] | None = None,
) -> None:
    def both(field: str) -> str:
        before, after = (sum(p[when][field] for p in proofs) for when in ("before", "after"))
        return render.change(before, after)

    errors = [
        given["error"] if given else max(proof[kind]["error"] for proof in proofs)
        for kind, given in (("float64", float64), ("float32", float32))
    ]
    counts = (both("total"), both("convolutions"), both("batch_norms"))
    found.add_row(*name, *counts, *map(render.error_text, errors), stays)


def network_text(spec: ModelSpec, parameters: int) -> str:
    """One line about a network."""
    planes, blocks = (",".join(map(str, values)) for values in (spec.planes, spec.num_blocks))
    return (
        f"{spec.streams} streams, planes {planes}, blocks {blocks}, "
        f"{spec.num_classes} classes, {parameters:,} parameters"
    )


def activation_text(choice: Mapping[str, Any]) -> str:
    """Which activation, and the evidence."""
    by = {"weights": "told by the weights", "option": "told by --activation; the weights say"}
    return f"{choice['activation']}, {by[choice['decided_by']]}: {choice['evidence']}"


def images_text(preprocessing: Mapping[str, Any]) -> str:
    """How images are prepared."""
    mean, std = (",".join(f"{v:g}" for v in preprocessing[key]) for key in ("mean", "std"))
    text = (
        f"{preprocessing['height']}x{preprocessing['width']}, {preprocessing['resize']}, "
        f"{preprocessing['interpolation']}, keep {preprocessing['crop_fraction']:g}, "
        f"mean {mean}, std {std}"
    )
    return _join(text, preprocessing.get("origin"))


def _join(first: str, *more: str | None) -> str:
    rest = " ".join(text for text in more if text)
    return f"{first} ({rest.rstrip('.')})" if rest else first
