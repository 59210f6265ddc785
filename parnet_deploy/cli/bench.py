"""The verb ``bench``."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, cast

import click
from rich.console import RenderableType

from . import render
from .bench_table import draw
from .chain import ensure_built
from .options import Common, deployment_argument, verb
from .timeline_table import draw_timeline_table

if TYPE_CHECKING:
    from ..bench.result import BenchReport

_DEFAULT_VS = ("torch", "onnxruntime")
_EPILOG = """\b
Examples:
  parnet-deploy bench
  parnet-deploy bench digits --vs torch --budget 60 --batch 4
  parnet-deploy bench digits --vs none --mode paced --rate 15
  parnet-deploy bench digits --vs onnxruntime,resnet34,engines/other
  parnet-deploy bench --timeline

\b
NAMES: torch, torch-compile, onnxruntime, openvino, resnet18, resnet34,
resnet50, resnet101, or the directory of another deployment. ResNets have
random weights, the classes and the input size of the deployment.

\b
JSON: deployment, name, skipped, report: schema, written, environment, subject, rounds (by mode),
rate_hz, arms (by name: note, network, precision, facts, import_ms, load_ms, first_ms, memory_mib,
model_mib, parameters, macs, check, and modes, each with samples_ms, quantiles_ms, ratio_to_ours,
late), left_out, noise, split, roofline, curves, timeline, verdict. The report is also in
DEPLOYMENT/reports: bench.json, and bench.html for a browser. With --timeline there are
timeline.json (for Perfetto) and timeline.svg, too.

\b
Exit code 3 if an arm answers anything else than the trained network; nothing is timed then.
"""


def _read_vs(ctx: click.Context, param: click.Parameter, text: str | None) -> Any:
    """Names of arms, separated by commas."""
    if text is None:
        return None
    from ..bench.arms.table import ARMS, find_arm
    from ..bench.result import OURS
    from ..errors import SpecError

    whole = {"none": (), "all": tuple(name for name in ARMS if name != OURS)}
    if text in whole:
        return whole[text]
    try:
        return tuple(find_arm(name.strip()) for name in text.split(",") if name.strip())
    except SpecError as error:
        raise click.BadParameter(f"{error} Or: none, all.") from error


@click.command(epilog=_EPILOG)
@deployment_argument
@click.option("--backend", help="Take engines of this backend only.")
@click.option("--plan", metavar="KEY", help="Take this plan; inspect lists them.")
@click.option("--batch", type=click.IntRange(1), default=1, show_default=True)
@click.option(
    "--vs",
    metavar="NAMES",
    callback=_read_vs,
    help=f"What to time beside it: names, or all, or none.  [default: {','.join(_DEFAULT_VS)}]",
)
@click.option("--against", hidden=True, callback=_read_vs)
@click.option(
    "--mode",
    type=click.Choice(["saturated", "paced", "both"]),
    default="both",
    show_default=True,
    help="Call after call, or calls spaced as in real life.",
)
@click.option(
    "--rate",
    type=click.FloatRange(0.01, 1e4),
    default=30.0,
    show_default=True,
    help="Paced calls in a second.",
)
@click.option("--rounds", type=click.IntRange(1), help="Timed rounds.  [default: by the budget]")
@click.option(
    "--budget", type=click.FloatRange(0.1), default=40.0, show_default=True, help="Seconds to time."
)
@click.option("--timeline", is_flag=True, help="Also trace some calls: what overlaps, what waits.")
@verb
def command(
    common: Common,
    deployment: str | None,
    backend: str | None,
    plan: str | None,
    batch: int,
    vs: tuple[str, ...] | None,
    against: tuple[str, ...] | None,
    mode: Literal["saturated", "paced", "both"],
    rate: float,
    rounds: int | None,
    budget: float,
    timeline: bool,
) -> None:
    """Time the deployment beside the trained network in PyTorch and on ONNX Runtime unfused.

    Each runs in a process of its own; all are timed in turns, after their outputs were compared;
    every sample is kept. Engines that are missing are built first.
    """
    directory = common.find(deployment)
    if plan is None:
        ensure_built(directory, common.output, backend=backend)
    from ..bench.bench_step import BenchOptions, bench_to_deployment
    from ..bench.report.evidence import gather
    from ..bench.result import BENCH_PAGE
    from ..deployment import Deployment

    options = BenchOptions(
        plan=plan,
        backend=backend,
        batch=batch,
        vs=next((names for names in (vs, against) if names is not None), _DEFAULT_VS),
        mode=mode,
        rate_hz=rate,
        rounds=rounds,
        budget_s=budget,
    )
    drawing: list[RenderableType] = []
    with common.output.progress("bench") as report:
        traced = None
        if timeline:
            from ..bench.timeline_step import PICTURE, trace_to_deployment

            traced = trace_to_deployment(directory, options, on_stage=report).report
            picture = render.printable(directory / PICTURE)
            drawing = ["", *draw_timeline_table(traced, picture)]
            options = replace(options, plan=traced["plan"])
        result = bench_to_deployment(directory, options, timeline=traced, on_stage=report)
    document = {
        "deployment": str(directory),
        "name": directory.name,
        "skipped": result.skipped,
        "report": result.report,
    }
    found = cast("BenchReport", result.report)
    evidence = gather(Deployment.open(directory), found["subject"]["plan"])
    table = draw(found, evidence, page=directory / BENCH_PAGE)
    common.output.result(document, *table, *drawing)
