"""The verb ``run``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import RenderableType
from rich.text import Text

from ..errors import DeploymentError
from . import render
from .chain import ensure_built, needs
from .options import Common, deployment_option, verb

if TYPE_CHECKING:
    from ..classify import Accuracy, Answer, Unreadable

_BLOCK_LIMIT = 3  # up to so many images get a block with bars each
_BAR = 24

_EPILOG = """\b
Examples:
  parnet-deploy run cat.jpg
  parnet-deploy run photos/ --deployment parnet-s --top 1 --json
  parnet-deploy run calibration/digits/eval --batch 8

\b
Exit code 1 if a file could not be read, though the others are answered; with --skip-unreadable
only if none could.

\b
JSON: deployment, plan, backend, answers (image, top: class, label, probability), accuracy (right,
total, share; null unless every image lies in a folder named like a label), unreadable (image,
error).
"""


@click.command(epilog=_EPILOG)
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path))
@deployment_option
@click.option("--backend", help="Take engines of this backend only.")
@click.option("--plan", metavar="KEY", help="Take this plan; inspect lists them.")
@click.option("--top", type=click.IntRange(1), default=5, show_default=True, help="Answers each.")
@click.option("--batch", type=click.IntRange(1), default=1, show_default=True)
@click.option("--skip-unreadable", is_flag=True, help="Files that cannot be read are no failure.")
@verb
def command(
    common: Common,
    images: tuple[Path, ...],
    deployment: str | None,
    backend: str | None,
    plan: str | None,
    top: int,
    batch: int,
    skip_unreadable: bool,
) -> None:
    """Classify IMAGES: files, or folders with images in them.

    Images are prepared as in training. If every image lies in a folder that is named like a label,
    the accuracy is printed too.
    """
    with needs("cpu"):
        from ..classify import Answer, Unreadable, classify, folder_accuracy
        from ..preprocess import find_images
        from ..runtime.session import Runtime
    from ..signing.trust import open_trusted
    from .inspect import read_preprocessing

    directory = common.find(deployment)
    paths = find_images(images)
    if plan is None:
        ensure_built(directory, common.output, backend=backend)
    opened = open_trusted(directory)
    preprocessing = read_preprocessing(opened)
    if preprocessing is None:
        raise DeploymentError(
            f"deployment {directory}: got no preprocessing, expected how an image is prepared. "
            "Run: parnet-deploy fuse model.pt."
        )
    labels = opened.labels or tuple(map(str, range(opened.spec.num_classes)))
    total = len(paths)
    with (
        common.output.progress("run") as report,
        Runtime.open(directory, backend=backend, plan=plan) as runtime,
    ):
        about = runtime.describe()
        found = list(
            classify(
                runtime,
                paths,
                preprocessing,
                batch=batch,
                on_image=lambda done: report(f"image {done} of {total}"),
            )
        )
    answers = [item for item in found if isinstance(item, Answer)]
    unreadable = [item for item in found if isinstance(item, Unreadable)]
    accuracy = folder_accuracy(answers, labels)
    document = {
        "deployment": str(directory),
        "plan": about["plan"],
        "backend": about["backend"],
        "answers": [_plain(answer, labels, top) for answer in answers],
        "accuracy": accuracy and {**vars(accuracy), "share": accuracy.share},
        "unreadable": [{"image": str(u.path), "error": u.reason} for u in unreadable],
    }
    drawing = _draw(answers, unreadable, accuracy, labels, top, about, common.output.width)
    common.output.result(document, *drawing)
    for item in unreadable:
        common.output.problem("unreadable", item.reason)
    if unreadable and (not answers or not skip_unreadable):
        raise click.exceptions.Exit(1)


def _plain(answer: Answer, labels: Sequence[str], top: int) -> dict[str, Any]:
    return {
        "image": str(answer.path),
        "top": [{"class": k, "label": labels[k], "probability": p} for k, p in answer.top(top)],
    }


def _draw(
    answers: Sequence[Answer],
    unreadable: Sequence[Unreadable],
    accuracy: Accuracy | None,
    labels: Sequence[str],
    top: int,
    about: dict[str, Any],
    width: int | None,
) -> list[RenderableType]:
    if len(answers) <= _BLOCK_LIMIT:
        items = [item for answer in answers for item in _block(answer, labels, top)]
    else:
        items = _list(answers, labels, top, width)
    count = f"{len(answers)} image{'' if len(answers) == 1 else 's'}"
    summary = [("images", f"{count} answered by {about['backend']}, plan {about['plan']}")]
    if accuracy is not None:
        share = render.percent_text(accuracy.share)
        right = f"{accuracy.right} of {accuracy.total} right = {share} (folder = label)"
        summary.append(("accuracy", right))
    if unreadable:
        summary.append(("unreadable", f"{len(unreadable)}, listed below"))
    return [*items, render.grid(summary)]


def _block(answer: Answer, labels: Sequence[str], top: int) -> list[RenderableType]:
    """One image with a bar for each answer."""
    found = render.answer_grid()
    for i, (k, p) in enumerate(answer.top(top)):
        style = "bold" if i == 0 else ""
        bar = Text("█" * round(p * _BAR), style="ok" if i == 0 else "key")
        name = Text(render.printable(labels[k]), style=style)
        found.add_row("", name, Text(f"{100 * p:.1f} %", style=style), bar)
    name = render.unfolded(Text(render.printable(answer.path), style="name"))
    return [name, found, ""]


def _list(
    answers: Sequence[Answer], labels: Sequence[str], top: int, width: int | None
) -> list[RenderableType]:
    """One line for each image; on a terminal under the folder that they share."""
    paths = [str(answer.path) for answer in answers]
    folder = os.path.commonpath(paths) if width is not None else ""
    rows = []
    for answer, path in zip(answers, paths, strict=True):
        (best, p), *rest = answer.top(top)
        shown = os.path.relpath(path, folder) if folder else path
        then = "   ".join(f"{labels[k]} {100 * q:.1f} %" for k, q in rest)
        cells = (shown, labels[best], f"{100 * p:.1f} %", then)
        rows.append([render.printable(cell) for cell in cells])
    under = [Text(render.printable(f"{folder}/"), style="name")] if folder else []
    return [*under, render.columns(rows, right={2}, width=width), ""]
