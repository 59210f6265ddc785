"""The verb ``build``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import RenderableType

from . import render
from .build_table import draw_measured
from .chain import ensure_exported, needs
from .options import Common, deployment_argument, numbers_option, verb

if TYPE_CHECKING:
    from ..steps import StepResult

_EPILOG = """\b
Examples:
  parnet-deploy build
  parnet-deploy build digits --placement streams --threads 2
  parnet-deploy build --backend auto        (after pip install 'parnet-deploy[openvino,mnn,ncnn]')
  parnet-deploy build --gpus 0,1,2
  parnet-deploy build --gpus 0,0,0 --placement streams
  parnet-deploy build --gpus 0,1,2 --backend fake
  parnet-deploy build --precision auto      (after parnet-deploy calibrate)

\b
JSON: deployment, name, skipped, report (plan, backend, placement, engines, threads, input_size,
max_batch, precision, measured, made). measured: median_ms, candidates (placement, devices,
aux_streams, threads, backend, backends, conversions, median_ms, p99_ms, ratio, predicted, left_out,
chosen), bound, note.
"""


@click.command(epilog=_EPILOG)
@deployment_argument
@click.option(
    "--backend",
    help="What runs the engines; auto takes the fastest backend of the CPU that is installed "
    "(onnxruntime, openvino, mnn, ncnn), or a mix of them.  [default: the best for GPUs here, "
    "else onnxruntime]",
)
@click.option(
    "--placement",
    type=click.Choice(["auto", "one", "one-aux", "streams", "recompute"]),
    default="auto",
    show_default=True,
    help="One engine, one with auxiliary cuda_streams, an engine per stream with shared or "
    "recomputed stems, or the fastest of them as measured here.",
)
@numbers_option(
    "--gpus",
    int,
    metavar="0,1,2",
    help="GPUs for the streams; auto also tries the first alone, the first two, and so on.",
)
@click.option("--threads", type=int, help="Cores for the engines.  [default: every usable one]")
@click.option(
    "--precision",
    type=click.Choice(["fp32", "fp16", "bf16", "int8", "auto"]),
    default="fp32",
    show_default=True,
    help="Of the engines; auto takes the fastest that passed its gates in calibrate. bf16: "
    "OpenVINO on CPUs that multiply bfloat16, held against the float32 reference.",
)
@click.option(
    "--max-batch", type=int, default=8, show_default=True, help="Largest batch that will be asked."
)
@click.option(
    "--aux-streams",
    type=int,
    help="Auxiliary cuda_streams of one engine.  [default: one less than the network's streams]",
)
@click.option(
    "--optimization-level", type=int, help="TensorRT: how long to search, 0 to 5.  [default: 3]"
)
@click.option("--workspace-mib", type=int, help="TensorRT: scratch memory.  [default: all]")
@click.option(
    "--hardware-compatibility",
    metavar="LEVEL",
    help="TensorRT: ampere_plus or same_compute_capability, for other GPUs too; slower.",
)
@click.option("--rebuild", is_flag=True, help="Build and measure though nothing has changed.")
@verb
def command(
    common: Common, deployment: str | None, gpus: tuple[int, ...] | None, **chosen: Any
) -> None:
    """Build engines for this machine, prove each, measure the placements, keep the fastest.

    An export that is missing is run first. What has not changed since the last build is skipped.
    """
    directory = common.find(deployment)
    with common.output.progress(f"build {directory.name}") as report:
        report("loading ONNX")
        with needs("export"):
            from ..builder.build import BuildOptions, build_to_deployment, choose_backend

        options = choose_backend(BuildOptions(gpus=gpus or (), **chosen))
    exported = ensure_exported(directory, common.output)
    if not exported:
        common.output.note("export is there, skipped")
    with common.output.progress(f"build {directory.name}") as report:
        result = build_to_deployment(directory, options, on_stage=report)
    _note_default(common, directory, result)
    document = {
        "deployment": str(directory),
        "name": directory.name,
        "skipped": result.skipped,
        "report": result.report,
    }
    common.output.result(document, *_draw(common, result))


def _draw(common: Common, result: StepResult) -> list[RenderableType]:
    report = result.report
    how = "unchanged, nothing to do" if result.skipped else "built and proved"
    folder = render.printable(result.path / "plans" / report["plan"])
    checks = report["made"]["checks"]
    worst = max(check["error"] for check in checks)
    machine = report["made"]["machine"]
    devices = sorted({segment["device"] for segment in report["placement"]["segments"]})
    return [
        render.heading(result.path.name, f"{how}, in {folder}"),
        render.facts(
            [
                ("plan", report["plan"]),
                ("backend", f"{report['backend']}, {report['precision']}"),
                ("machine", _machine(report["backend"], machine)),
                ("engines", _engines(report, devices)),
                ("proof", f"{len(checks)} comparisons, worst error {render.error_text(worst)}"),
            ]
        ),
        *draw_measured(report["measured"]),
        "",
        render.next_step(
            (common.run_command(result.path), "the answers"),
            (f"parnet-deploy bench {common.argument(result.path)}", "how fast, and beside what"),
        ),
    ]


def _machine(backend: str, machine: Mapping[str, Any]) -> str:
    from ..runtime.backend import on_host

    gpus = [gpu["name"] for gpu in machine["gpus"]]
    if on_host(backend) or not gpus:
        return f"{machine['cpu']}, {machine['cores_usable']} usable cores"
    counts = [f"{gpus.count(name)} {name}" for name in dict.fromkeys(gpus)]
    return f"{', '.join(counts)}; driver {machine['gpu_driver'] or 'unknown'}"


def _engines(report: Mapping[str, Any], devices: list[int]) -> str:
    segments = report["placement"]["segments"]
    lanes = len({(segment["device"], segment["lane"]) for segment in segments})
    where = f"devices {','.join(map(str, devices))}" if len(devices) > 1 else "one device"
    count = f"{len(segments)} engines" if len(segments) > 1 else "1 engine"
    side = f", {lanes} side by side" if lanes > 1 else ""
    return f"{count}{side}, on {where}, for {_size(report)}, batch up to {report['max_batch']}"


def _size(report: Mapping[str, Any]) -> str:
    from ..input_size import InputSize

    return str(InputSize.from_json(report["input_size"]))


def _note_default(common: Common, directory: Path, result: StepResult) -> None:
    """Say so if this plan is not the one that runs where none is named."""
    from ..deployment import Deployment
    from ..runtime.choose import order_plans

    default, plan = order_plans(Deployment.open(directory))[0], result.report["plan"]
    if default != plan and result.report["backend"] != "fake":
        common.output.note(
            f"where no plan is named, {default} runs: it was built later, or on a better backend. "
            f"Use --plan {plan}, or build it again with --rebuild"
        )
