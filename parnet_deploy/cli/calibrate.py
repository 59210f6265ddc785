"""The verb ``calibrate``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import CheckFailedError, InputError
from .calibrate_table import draw_outcomes
from .chain import ensure_exported, needs
from .options import Common, deployment_option, verb

if TYPE_CHECKING:
    from ..quantize.gates import Gates
    from ..quantize.prepare import DataOptions

_GATES = {
    "max_drop_points": ("--max-drop", "Points of accuracy lost on clean images."),
    "max_noisy_drop_points": ("--max-noisy-drop", "Points of accuracy lost on noisy images."),
    "min_sqnr_db": ("--min-sqnr", "SQNR of the logits on clean images, dB."),
    "min_noisy_sqnr_db": ("--min-noisy-sqnr", "SQNR of the logits on noisy images, dB."),
    "min_agreement": ("--min-agreement", "Share of clean images with the same answer, 0 to 1."),
    "min_noisy_agreement": ("--min-noisy-agreement", "The same on noisy images."),
    "max_kernel_gap_db": ("--max-kernel-gap", "SQNR that kernels lose to the emulation, dB."),
    "min_kernel_agreement": ("--min-kernel-agreement", "Same answer of the two, 0 to 1."),
    "max_clipped": ("--max-clipped", "Share of held-out values outside the ranges, 0 to 1."),
}
"""Fields of ``Gates`` as options."""

_EPILOG = """\b
Examples:
  parnet-deploy calibrate photos/
  parnet-deploy calibrate parnet-s photos/ --eval imagenet/val --samples 256
  parnet-deploy calibrate photos/ --eval-labels val.csv --method percentile
  parnet-deploy calibrate             (the demo network, on the digits that ship)

\b
Labels make accuracy a gate: folders named like the labels, or a CSV with the columns file,label.
A search that was interrupted goes on where it was.

\b
JSON: deployment, name, calibration (report, skipped), precisions (per target: passed, skipped,
error, report); reports are also in DEPLOYMENT/reports/precision-TARGET.json and .html.

\b
Exit code 3 if a precision fails its gates; it is not published, and what was there stays.
"""


def _gate_options(function: Callable[..., Any]) -> Callable[..., Any]:
    for name, (option, text) in reversed(_GATES.items()):
        function = click.option(option, name, type=float, metavar="LIMIT", help=text)(function)
    return function


@click.command(epilog=_EPILOG)
@click.argument("images", nargs=-1, type=click.Path(path_type=Path))
@deployment_option
@click.option("--labels", "table", type=click.Path(path_type=Path), help="CSV for IMAGES.")
@click.option(
    "--eval",
    "evaluation",
    type=click.Path(path_type=Path),
    multiple=True,
    help="Images to evaluate on; repeatable.  [default: a quarter of IMAGES]",
)
@click.option("--eval-labels", type=click.Path(path_type=Path), help="CSV for --eval.")
@click.option(
    "--noisy",
    type=click.Path(path_type=Path),
    multiple=True,
    help="Harder images to evaluate on; repeatable.  [default: --eval with noise]",
)
@click.option(
    "--noise", type=float, default=0.25, show_default=True, help="Of that noise; 0: none."
)
@click.option("--samples", type=int, default=256, show_default=True, help="Images to calibrate on.")
@click.option("--eval-samples", type=int, default=2000, show_default=True)
@click.option(
    "--method",
    type=click.Choice(["minmax", "percentile", "entropy", "mse"]),
    default="minmax",
    show_default=True,
    help="How ranges are chosen.",
)
@click.option("--percentile", type=float, default=99.99, show_default=True)
@click.option(
    "--precision",
    "precisions",
    multiple=True,
    metavar="NAME",
    help="fp16, int8, int8-cpu, int8-trt or all; repeatable.  [default: what is of use here]",
)
@click.option("--keep", multiple=True, metavar="LAYER", help="Stays in float32; repeatable.")
@click.option("--no-search", is_flag=True, help="Fail at once instead of putting layers back.")
@_gate_options
@verb
def command(
    common: Common,
    images: tuple[Path, ...],
    deployment: str | None,
    method: Any,
    percentile: float,
    precisions: tuple[str, ...],
    keep: tuple[str, ...],
    no_search: bool,
    **more: Any,
) -> None:
    """Measure the ranges of all tensors on IMAGES, and make graphs in lower precision.

    The first of them may be the name of the deployment.

    Each precision is held against float32: accuracy, agreement and noise of the logits, on clean
    and noisy images. If it fails, the layers that harm most go back to float32, one by one.
    """
    if deployment is None and images and _names_deployment(common.root, images[0]):
        deployment, images = str(images[0]), images[1:]
    directory = common.find(deployment)
    ensure_exported(directory, common.output)
    gates = {name: more.pop(name) for name in _GATES}
    with common.output.progress("calibrate") as report:
        report("loading ONNX")
        with needs("export"):
            from ..quantize.calibrate_step import CalibrateOptions, calibrate
            from ..quantize.options import QuantizeOptions
            from ..quantize.prepare import load_data, resolve_targets
            from ..quantize.quantize_step import quantize_to_deployment
        from ..machine.gpus import probe_gpus

        targets = resolve_targets(precisions, gpu=probe_gpus()[0] > 0)
        data = load_data(directory, _data_options(directory, images, more), on_stage=report)
        calibration = calibrate(
            directory,
            data.calibration,
            data.sets["clean"],
            CalibrateOptions(method=method, percentile=percentile),
            on_stage=report,
        )
    outcomes: dict[str, dict[str, Any]] = {}
    for target in targets:
        options = QuantizeOptions(
            target=target, gates=_gates(target, gates), keep=keep, search=not no_search
        )
        with common.output.progress(f"quantize {target}") as report:
            tell = _teller(common, target, report)
            try:
                result = quantize_to_deployment(
                    directory, data.sets, options, calibration=calibration, on_stage=tell
                )
            except CheckFailedError as error:
                outcomes[target] = {"passed": False, "skipped": False, "error": str(error)}
                continue
        outcomes[target] = {
            "passed": True,
            "skipped": result.skipped,
            "error": None,
            "report": result.report,
        }
    document = {
        "deployment": str(directory),
        "name": directory.name,
        "calibration": {"skipped": calibration.current, "report": calibration.report},
        "precisions": outcomes,
    }
    common.output.result(document, *draw_outcomes(common, directory, calibration, outcomes))
    failed = [str(found["error"]) for found in outcomes.values() if not found["passed"]]
    if failed:
        raise CheckFailedError(" ".join(failed))


def _names_deployment(root: Path, name: Path) -> bool:
    """Whether the first argument is the deployment and not a folder of images."""
    from ..storage.names import MANIFEST

    return (name / MANIFEST).is_file() or (root / name / MANIFEST).is_file()


def _teller(common: Common, target: str, report: Callable[[str], None]) -> Callable[[str], None]:
    """Progress, and each step of a search as a line that stays."""

    def tell(text: str) -> None:
        if " in float32: " in text or text.startswith("every layer"):
            common.output.note(f"{target}: {text}")
        report(text)

    return tell


def _gates(target: str, given: Mapping[str, float | None]) -> Gates:
    """The target's gates with the user's limits."""
    from ..quantize.gates import FLOAT16_GATES, Gates

    base = FLOAT16_GATES if target == "fp16" else Gates()
    values = {field.name: getattr(base, field.name) for field in fields(base)}
    asked = {name: value for name, value in given.items() if value is not None}
    return Gates(**values | asked | {"exact": tuple(asked)})


def _data_options(directory: Path, images: Sequence[Path], more: Mapping[str, Any]) -> DataOptions:
    from ..quantize.prepare import DataOptions, ImageSource

    calibration = ImageSource(paths=tuple(images), table=more["table"])
    evaluation = ImageSource(paths=more["evaluation"], table=more["eval_labels"])
    noisy = ImageSource(paths=more["noisy"])
    if not calibration:
        place = _demo_images(directory)
        calibration = ImageSource(paths=(place / "calibration",))
        evaluation = evaluation or ImageSource(paths=(place / "eval",))
        noisy = noisy or ImageSource(paths=(place / "noisy",))
    return DataOptions(
        calibration=calibration,
        evaluation=evaluation,
        noisy=noisy,
        samples=more["samples"],
        eval_samples=more["eval_samples"],
        noise=more["noise"],
    )


def _demo_images(directory: Path) -> Path:
    """The digits that ship, for the network that was trained on them.

    Raises:
        InputError: It is another network, which needs images of its own.
    """
    from ..deployment import Deployment
    from ..storage.files import hash_file
    from .demo import find_data
    from .demo_steps import CHECKPOINT, EVAL

    source = Deployment.open(directory).source.get("sha256")
    try:
        place = find_data(None)
    except InputError:
        place = None
    if place is None or hash_file(place / CHECKPOINT)[0] != source:
        raise InputError(
            f"calibration images of {directory.name}: got none, expected some of the kind that "
            "the network will see. Run: parnet-deploy calibrate IMAGES."
        )
    return (place / EVAL).parent
