"""What the verb ``serve`` says when it is ready."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import RenderableType
from rich.text import Text

from . import render
from .asking import curl_command
from .options import Common

if TYPE_CHECKING:
    from ..doctor.finding import Finding
    from ..serve.server.deployments import DeploymentServer
    from ..serve.server.options import ServerOptions


def show(
    common: Common,
    server: DeploymentServer,
    options: ServerOptions,
    findings: Sequence[Finding],
    token_file: Path | None,
) -> None:
    """Say where it listens, what answers, and on what machine."""
    cards = server.service.describe()["models"]
    shown_here = [
        *server.service.warnings(),
        *(f"{f.name}: {f.detail}; {f.fix}" for f in findings if f.status == "warning"),
    ]
    metrics = server.url and f"{server.url}/metrics"
    if server.metrics_port is not None:
        metrics = f"http://127.0.0.1:{server.metrics_port}/metrics"
    document = {
        "url": server.url,
        "grpc": server.grpc_target,
        "metrics": metrics,
        "pid": os.getpid(),
        "models": list(cards),
        "warnings": [*options.warnings(server.address), *shown_here],
    }
    if common.output.as_json:
        click.echo(json.dumps(document))
        return
    rows: list[tuple[str, str | Text]] = [
        (name, shown)
        for name, shown in (
            ("REST", server.url),
            ("gRPC", server.grpc_target),
            ("metrics", metrics),
            ("machine", _machine_text(findings)),
        )
        if shown
    ]
    rows += [(name, _model_text(card)) for name, card in cards.items()]
    drawing: list[RenderableType] = [
        render.heading("serving", ", ".join(cards)),
        render.facts(rows),
    ]
    if shown_here:  # the others are in the log
        drawing += ["", *render.lines("!", "warn", shown_here)]
    if server.port is not None:
        curl = curl_command(options, server.address, server.port, next(iter(cards)), token_file)
        drawing += ["", render.next_step((curl, ""))]
    common.output.result(document, *drawing)
    sys.stdout.flush()


def _machine_text(findings: Sequence[Finding]) -> str:
    return "; ".join(f.detail for f in findings if f.name in ("cpu", "cores") or f.group == "gpus")


def _model_text(card: dict[str, Any]) -> str:
    running = card["running"]
    median = running["median_ms"]
    timed = "" if median is None else f", {render.ms_text(median)} when it was built"
    return f"{running['backend']}, plan {running['plan']}, {running['precision']}{timed}"
