"""The verb ``bench``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import RenderableType
from rich.text import Text

from . import render
from .chain import ensure_built, needs
from .options import Common, deployment_argument, verb
from .timeline_table import draw_timeline_table

if TYPE_CHECKING:
    from ..measure import Arm

_ARMS = ("torch", "onnxruntime-unfused")
_EPILOG = """\b
Examples:
  parnet-deploy bench
  parnet-deploy bench digits --budget 60 --batch 4
  parnet-deploy bench digits --against none
  parnet-deploy bench --timeline

\b
JSON: deployment, name, skipped, report (environment, plan, backend, simulated, batch, input_size,
rounds, arms: per arm p50_ms, p90_ms, p99_ms, first_ms, load_ms, ratio_to_ours, samples_ms;
checks, left_out, noisy); the report is also in DEPLOYMENT/reports/bench.json. With --timeline the
report has timeline (wall_us, overlap, critical, critical_split, lanes, simulated), and
DEPLOYMENT/reports has timeline.json (for Perfetto) and timeline.svg.
"""


@click.command(epilog=_EPILOG)
@deployment_argument
@click.option("--backend", help="Take engines of this backend only.")
@click.option("--plan", metavar="KEY", help="Take this plan; inspect lists them.")
@click.option("--batch", type=click.IntRange(1), default=1, show_default=True)
@click.option("--rounds", type=click.IntRange(1), help="Timed rounds.  [default: by the budget]")
@click.option(
    "--budget", type=click.FloatRange(0.1), default=20.0, show_default=True, help="Seconds to time."
)
@click.option(
    "--against",
    type=click.Choice(["all", *_ARMS, "none"]),
    default="all",
    show_default=True,
    help="What to time beside it.",
)
@click.option("--timeline", is_flag=True, help="Also trace some calls: what overlaps, what waits.")
@verb
def command(
    common: Common,
    deployment: str | None,
    backend: str | None,
    plan: str | None,
    batch: int,
    rounds: int | None,
    budget: float,
    against: str,
    timeline: bool,
) -> None:
    """Time the deployment beside the trained network in PyTorch and on ONNX Runtime unfused.

    All are timed in turns in one run, after their outputs were compared; every sample is kept.
    Engines that are missing are built first.
    """
    directory = common.find(deployment)
    if plan is None:
        ensure_built(directory, common.output, backend=backend)
    from ..bench.bench_step import BenchOptions, bench_to_deployment

    options = BenchOptions(plan=plan, backend=backend, batch=batch, rounds=rounds, budget_s=budget)
    wanted = {"all": _ARMS, "none": ()}.get(against, (against,))
    with common.output.progress("bench") as report:
        report("loading what it is compared with")
        arms, left_out = load_arms(directory, wanted, batch=batch)
        result = bench_to_deployment(
            directory, options, arms=arms, left_out=left_out, on_stage=report
        )
        traced = {}
        if timeline:
            from ..bench.timeline_step import PICTURE, trace_to_deployment

            same = replace(options, plan=result.report["plan"])
            traced["timeline"] = trace_to_deployment(directory, same, on_stage=report).report
    document = {
        "deployment": str(directory),
        "name": directory.name,
        "skipped": result.skipped,
        "report": {**result.report, **traced},
    }
    drawing = _draw(directory, result.report)
    if traced:
        picture = render.printable(directory / PICTURE)
        drawing += ["", *draw_timeline_table(traced["timeline"], picture)]
    common.output.result(document, *drawing)


def load_arms(
    directory: Path, wanted: tuple[str, ...], *, batch: int
) -> tuple[list[Arm], dict[str, str]]:
    """The trained network as arms of a benchmark, and why some cannot be had."""
    from ..deployment import Deployment
    from ..errors import MissingExtraError
    from ..steps import read_reference

    if not wanted:
        return [], {}
    opened = Deployment.open(directory)
    try:
        with needs("export"):
            from ..export.baselines import torch_arm, unfused_arm
            from ..export.trained import training_form
    except MissingExtraError as error:
        return [], dict.fromkeys(wanted, str(error))
    model = training_form(opened)
    if model is None:
        why = f"the checkpoint {opened.source['path']} is gone or was changed"
        return [], dict.fromkeys(wanted, why)
    image = read_reference(opened).image
    arms, left_out = [], {}
    if "torch" in wanted:
        arms.append(torch_arm(model))
    if "onnxruntime-unfused" in wanted:
        try:
            with needs("export"):
                arms.append(unfused_arm(model, image.repeat(batch, axis=0)))
        except MissingExtraError as error:
            left_out["onnxruntime-unfused"] = str(error)
    return arms, left_out


def _draw(directory: Path, report: Mapping[str, Any]) -> list[RenderableType]:
    found = render.table("ms", ">p50", ">p90", ">p99", ">ratio", ">95 %", ">first", ">load")
    for name, arm in report["arms"].items():
        ratio = {key: render.three_digits(value) for key, value in arm["ratio_to_ours"].items()}
        same = ratio["low"] == ratio["high"]
        found.add_row(
            name,
            *(render.three_digits(arm[key]) for key in ("p50_ms", "p90_ms", "p99_ms")),
            "" if same else ratio["median"],
            "" if same else f"{ratio['low']}-{ratio['high']}",
            render.three_digits(arm["first_ms"]),
            "" if arm["load_ms"] is None else render.three_digits(arm["load_ms"]),
        )
    warnings = [f"{name} was left out: {why}" for name, why in report["left_out"].items()]
    if report["simulated"]:
        warnings.append("simulated devices: these latencies say nothing about any hardware")
    if report["noisy"]:
        warnings.append(f"noisy: {report['noisy']}")
    how = f"{report['rounds']} rounds in turns, batch {report['batch']}, {report['input_size']}"
    return [
        render.heading(directory.name, how),
        render.facts(
            [
                ("machine", machine_text(report["environment"])),
                *((name, arm["note"]) for name, arm in report["arms"].items()),
            ]
        ),
        render.spaced(found),
        "",
        Text(
            "Milliseconds. Ratio: time in units of ours, median of the rounds with its 95 % "
            "interval. The first run and loading stand apart.",
            style="key",
        ),
        *([""] if warnings else []),
        *render.lines("!", "warn", warnings),
    ]


def machine_text(environment: Mapping[str, Any]) -> str:
    """The machine in one line."""
    packages = environment["packages"]
    versions = ", ".join(f"{name} {packages[name]}" for name in sorted(packages))
    load = environment["load_average"]
    busy = f", load {load[0]}" if load else ""
    return f"{environment['cpu']}, {environment['cores_usable']} cores{busy}; {versions}"
