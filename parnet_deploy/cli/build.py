"""The verb ``build``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click
from rich.console import RenderableType
from rich.text import Text

from . import render
from .chain import ensure_exported, needs
from .options import Common, deployment_argument, numbers_option, verb

if TYPE_CHECKING:
    from ..steps import StepResult

_EPILOG = """\b
Examples:
  parnet-deploy build
  parnet-deploy build digits --placement streams --threads 2
  parnet-deploy build --gpus 0,1,2 --backend fake
  parnet-deploy build --precision auto      (after parnet-deploy calibrate)

\b
JSON: deployment, name, skipped, report (plan, backend, placement, engines, threads, input_size,
max_batch, precision, measured, made).
"""


@click.command(epilog=_EPILOG)
@deployment_argument
@click.option("--backend", help="What runs the engines.  [default: the best this machine has]")
@click.option(
    "--placement",
    type=click.Choice(["auto", "one", "streams"]),
    default="auto",
    show_default=True,
    help="One engine, an engine per stream, or the faster of the two as measured here.",
)
@numbers_option("--gpus", int, metavar="0,1,2", help="GPUs to spread the streams over.")
@click.option("--threads", type=int, help="Cores for the engines.  [default: every usable one]")
@click.option(
    "--precision",
    type=click.Choice(["fp32", "fp16", "int8", "auto"]),
    default="fp32",
    show_default=True,
    help="Of the engines; auto takes the fastest that passed its gates in calibrate.",
)
@click.option(
    "--max-batch", type=int, default=8, show_default=True, help="Largest batch that will be asked."
)
@verb
def command(
    common: Common,
    deployment: str | None,
    backend: str | None,
    placement: str,
    gpus: tuple[int, ...] | None,
    threads: int | None,
    precision: str,
    max_batch: int,
) -> None:
    """Build engines for this machine, prove each, measure the placements, keep the fastest.

    An export that is missing is run first. What has not changed since the last build is skipped.
    """
    directory = common.find(deployment)
    with common.output.progress(f"build {directory.name}") as report:
        report("loading ONNX")
        with needs("export"):
            from ..builder.build import BuildOptions, build_to_deployment, choose_backend

        options = choose_backend(
            BuildOptions(
                backend=backend,
                placement=placement,
                gpus=gpus or (),
                threads=threads,
                precision=precision,
                max_batch=max_batch,
            )
        )
    exported = ensure_exported(directory, common.output)
    if not exported:
        common.output.note("export is there, skipped")
    with common.output.progress(f"build {directory.name}") as report:
        result = build_to_deployment(directory, options, on_stage=report)
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
                ("machine", f"{machine['cpu']}, {machine['cores_usable']} usable cores"),
                ("engines", _engines(report, devices)),
                ("proof", f"{len(checks)} comparisons, worst error {render.error_text(worst)}"),
            ]
        ),
        *_measured(report["measured"]),
        "",
        render.next_step(
            (common.run_command(result.path), "the answers"),
            (f"parnet-deploy bench {common.argument(result.path)}", "how fast, and beside what"),
        ),
    ]


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


def _measured(measured: Mapping[str, Any]) -> list[RenderableType]:
    """The table of placements, and why the winner won."""
    if "candidates" not in measured:
        return ["", Text(f"{measured['note']}.", style="warn")]
    several = len({row["precision"] for row in measured["candidates"]}) > 1
    precision = ("precision",) if several else ()
    found = render.table(
        *precision, "placement", ">cores", ">p50", ">p99", ">ratio", ">95 % interval", ""
    )
    for row in measured["candidates"]:
        ratio = row["ratio"]
        found.add_row(
            *((row["precision"],) if several else ()),
            row["placement"],
            _cores(row),
            render.ms_text(row["median_ms"]),
            render.ms_text(row["p99_ms"]),
            f"{ratio['median']:.2f}",
            "" if ratio["low"] == ratio["high"] else f"{ratio['low']:.2f} to {ratio['high']:.2f}",
            Text(render.OK if row["chosen"] else "", style="ok"),
        )
    return [render.spaced(found), "", _why(measured["candidates"])]


def _why(rows: list[Mapping[str, Any]]) -> str:
    """One sentence: why this placement."""
    if len(rows) == 1:
        return f"{_label(rows[0])}: the only placement that was to be measured."
    chosen = next(row for row in rows if row["chosen"])
    if chosen is rows[0]:
        return f"{_label(chosen)}: it is the simplest, and no other was clearly faster."
    ratio = chosen["ratio"]
    base = _label(rows[0]).lower()
    return (
        f"{_label(chosen)}: it takes {ratio['median']:.2f} of the time of {base}, "
        f"measured in turns (95 % interval {ratio['low']:.2f} to {ratio['high']:.2f})."
    )


def _label(row: Mapping[str, Any]) -> str:
    names = {"one": "One engine", "streams": "An engine per stream"}
    cores = _cores(row)
    name = names.get(row["placement"], row["placement"])
    precision = "" if row.get("precision", "fp32") == "fp32" else f" in {row['precision']}"
    return f"{name}{precision} on {cores} core{'' if cores == '1' else 's'}"


def _cores(row: Mapping[str, Any]) -> str:
    return "all" if row["threads"] is None else str(row["threads"])
