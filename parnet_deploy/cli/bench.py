"""The verb ``bench``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import click
from rich.console import RenderableType

from . import render
from .bench_table import draw
from .chain import ensure_built
from .comparison_table import draw_comparison, read_older
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
  parnet-deploy bench digits --vs onnxruntime-fp32-auto,openvino,mnn,ncnn
  parnet-deploy bench --timeline
  parnet-deploy bench --compare before.json
  parnet-deploy bench --sweep batch,threads
  parnet-deploy bench small --variant medium --variant large

\b
NAMES: torch, torch-compile, onnxruntime, openvino, mnn, ncnn, resnet18, resnet34, resnet50,
resnet101, the key of another plan, or the directory of another deployment. mnn and ncnn are the
newest plans of those backends. ResNets have random weights, the classes and the input size of the
deployment.

\b
JSON: deployment, name, skipped, report: schema, written, environment, subject, rounds (by mode),
rate_hz, arms (by name: note, network, precision, facts, import_ms, load_ms, first_ms, memory_mib,
model_mib, parameters, macs, check, and modes, each with samples_ms, quantiles_ms, ratio_to_ours,
late), left_out, noise, split, roofline, curves, timeline, verdict. The report is also in
DEPLOYMENT/reports: bench.json, and bench.html for a browser. With --timeline there are
timeline.json (for Perfetto) and timeline.svg, too. With --compare
also comparison: verdict, by, old_written, new_written, modes, costs, failures, warnings, notes.

\b
Exit code 3 if an arm answers anything else than the trained network; nothing is timed then. With
--compare also if the deployment is slower than in that report, beyond noise, or takes over 10 %
and 8 MiB more memory; what others do to this machine is told by the yardstick, a fixed computation
that is timed beside on the CPU. A report of another machine is refused.
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


def _read_sweep(ctx: click.Context, param: click.Parameter, text: str | None) -> tuple[Any, ...]:
    """Axes of curves, separated by commas."""
    known = ("batch", "threads", "size")
    names = known if text == "all" else tuple(n.strip() for n in (text or "").split(",") if n)
    if set(names) - set(known):
        raise click.BadParameter(f"got {text!r}, expected names out of {', '.join(known)}; or all.")
    return tuple(dict.fromkeys(names))


@click.command(epilog=_EPILOG)
@deployment_argument
@click.option("--backend", help="Take engines of this backend only.")
@click.option("--plan", metavar="KEY", help="Take this plan; inspect lists them.")
@click.option("--batch", type=click.IntRange(1), default=1, show_default=True)
@click.option(
    "--vs",
    metavar="NAMES",
    callback=_read_vs,
    help="What to time beside it: names, separated by commas; or all, or none.  "
    f"[default: {','.join(_DEFAULT_VS)}]",
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
@click.option(
    "--compare",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="An older report of this machine: fail if it was faster then.",
)
@click.option(
    "--sweep", metavar="NAMES", callback=_read_sweep, help="Curves: batch,threads,size, or all."
)
@click.option(
    "--variant",
    metavar="DEPLOYMENT",
    multiple=True,
    help="Also time that deployment's best plan beside this one's; repeatable.",
)
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
    compare: Path | None,
    sweep: tuple[Any, ...],
    variant: tuple[str, ...],
) -> None:
    """Time the deployment beside the trained network in PyTorch and on ONNX Runtime unfused.

    Each runs in a process of its own; all are timed in turns, after their outputs were compared;
    every sample is kept. Engines that are missing are built first.
    """
    directory = common.find(deployment)
    from ..bench.result import BENCH_PAGE, BENCH_REPORT

    if compare is not None and compare.resolve() == (directory / BENCH_REPORT).resolve():
        raise click.UsageError(
            f"--compare {compare}: this run overwrites it. Keep a copy, and compare with that: "
            f"cp {compare} before.json"
        )
    old = None if compare is None else read_older(compare)
    if plan is None:
        ensure_built(directory, common.output, backend=backend)
    from ..bench.bench_step import BenchOptions, bench_to_deployment
    from ..bench.regression import check_subject
    from ..bench.report.evidence import gather
    from ..bench.sweep import SweepOptions
    from ..deployment import Deployment

    variants = tuple(common.find(name) for name in variant)
    over = (*sweep, *(("variant",) if variants else ()))
    options = BenchOptions(
        plan=plan,
        backend=backend,
        batch=batch,
        vs=next((names for names in (vs, against) if names is not None), _DEFAULT_VS),
        mode=mode,
        rate_hz=rate,
        rounds=rounds,
        budget_s=budget,
        curves=SweepOptions(over=over, variants=variants, rounds=rounds) if over else None,
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
        result = bench_to_deployment(
            directory,
            options,
            timeline=traced,
            check=lambda subject: None if old is None else check_subject(old, subject),
            on_stage=report,
        )
    document = {
        "deployment": str(directory),
        "name": directory.name,
        "skipped": result.skipped,
        "report": result.report,
    }
    measured = cast("BenchReport", result.report)
    evidence = gather(Deployment.open(directory), measured["subject"]["plan"])
    table = draw(measured, evidence, page=directory / BENCH_PAGE)
    if old is None:
        common.output.result(document, *table, *drawing)
        return
    from ..bench.regression import compare_reports, require_unchanged

    found = compare_reports(old, measured)
    document["comparison"] = found
    common.output.result(document, *table, *drawing, "", *draw_comparison(found))
    require_unchanged(found)
