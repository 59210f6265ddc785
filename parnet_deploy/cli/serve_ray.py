"""``serve --ray``: the options, and the verb's work on a cluster."""

from __future__ import annotations

import functools
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import RenderableType
from rich.text import Text

from . import render
from .asking import curl_command
from .chain import needs
from .options import Common, FiniteRange, Function

if TYPE_CHECKING:
    from ..serve.ray.need import Need
    from ..serve.ray.serving import Plan
    from ..serve.ray.settings import ReplicaSettings
    from ..serve.server.options import ServerOptions

_WRITABLE = click.Path(dir_okay=False, path_type=Path)
_OPTIONS: tuple[Callable[[Function], Function], ...] = (
    click.option("--ray", "on_ray", is_flag=True, help="Serve on a Ray cluster (extra ray)."),
    click.option(
        "--replicas",
        type=click.IntRange(1),
        help="With --ray: processes that serve, each with all the models.  [default: 1]",
    ),
    click.option(
        "--max-replicas",
        type=click.IntRange(1),
        help="With --ray: as many more as the load wants, up to this.",
    ),
    click.option(
        "--target-ongoing",
        type=FiniteRange(0, min_open=True),
        help="With --ray: requests at a time for each replica, with --max-replicas.  [default: 2]",
    ),
    click.option("--cpus", type=click.IntRange(1), help="With --ray: cores of each replica."),
    click.option("--gpus", type=click.IntRange(0), help="With --ray: GPUs of each replica."),
    click.option(
        "--ray-address",
        metavar="HOST:PORT",
        envvar="RAY_ADDRESS",
        help="With --ray: a cluster that runs, or auto.  [default: a new one here]",
    ),
    click.option(
        "--write-config",
        type=_WRITABLE,
        metavar="FILE",
        help="With --ray: write the file for `serve deploy`, and end.",
    ),
)


@dataclass(frozen=True, kw_only=True)
class RayChoice:
    """What the user wants of Ray; ``scale`` as ``ScaleOptions`` has it, defaults left out."""

    scale: dict[str, Any]
    address: str | None
    write_config: Path | None

    def check(self, options: ServerOptions) -> None:
        """Refuse what cannot be, before anything is built or started.

        Raises:
            ParnetDeployError: Of the wires or the numbers.
        """
        from ..serve.ray.config import AUTH_MODE, check_wires
        from ..serve.ray.options import ScaleOptions

        check_wires(options)
        ScaleOptions(**self.scale)
        if self.write_config is None:
            if not options.insecure:
                os.environ.setdefault(AUTH_MODE, "token")  # Ray reads it when it is imported
            with needs("ray"):
                import ray  # noqa: F401


@dataclass(frozen=True, kw_only=True)
class RaySource:
    """What of the verb's other options a replica needs."""

    directories: Sequence[Path]
    backend: str | None
    plan: str | None
    slots: int
    threads: int | None
    max_queue: int
    max_delay_ms: float
    deadline_ms: float
    max_image_pixels: int
    token_file: Path | None


def ray_options(function: Function) -> Function:
    """Add the options for Ray; the function gets them as ``ray``, None without ``--ray``."""

    @functools.wraps(function)
    def with_ray(
        *args: Any,
        on_ray: bool,
        replicas: int | None,
        max_replicas: int | None,
        target_ongoing: float | None,
        cpus: int | None,
        gpus: int | None,
        ray_address: str | None,
        write_config: Path | None,
        **more: Any,
    ) -> Any:
        wanted = {
            "replicas": replicas,
            "max_replicas": max_replicas,
            "target_ongoing": target_ongoing,
            "cpus": cpus,
            "gpus": gpus,
        }
        scale = {name: value for name, value in wanted.items() if value is not None}
        if not on_ray and (scale or write_config is not None):
            name = next(iter(scale), "write_config").replace("_", "-")
            raise click.UsageError(f"--{name} is for a Ray cluster. Add --ray.")
        choice = RayChoice(scale=scale, address=ray_address, write_config=write_config)
        return function(*args, ray=choice if on_ray else None, **more)

    command: Function = with_ray
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def serve_on_ray(
    common: Common, choice: RayChoice, source: RaySource, options: ServerOptions
) -> bool:
    """Serve on a cluster until a signal, or write the file for one; whether it ended in peace."""
    if choice.write_config is not None:
        from ..serve.ray.config import config_file

        need, settings, deployment = _describe(choice, source, options)
        _write(choice.write_config, config_file(options, settings, deployment))
        _show_file(common, choice.write_config, settings, need)
        return True
    from ..serve.ray.process import serve_until_stopped
    from ..serve.ray.serving import Plan

    def make_plan() -> Plan:
        _, settings, deployment = _describe(choice, source, options)
        return Plan(
            settings=settings, deployment=deployment, options=options, address=choice.address
        )

    if choice.address is None:
        common.output.note("starting a Ray cluster on this machine")
    return serve_until_stopped(make_plan, on_ready=lambda plan: _show(common, plan, source))


def _write(path: Path, text: str) -> None:
    """Write the file for a cluster.

    Raises:
        ServeError: It cannot be written.
    """
    from ..errors import ServeError

    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ServeError(
            f"file {path}: got {error.strerror or error}, expected a writable path. "
            "Choose another one with --write-config."
        ) from error


def _describe(
    choice: RayChoice, source: RaySource, options: ServerOptions
) -> tuple[Need, ReplicaSettings, dict[str, Any]]:
    from ..serve.ray.config import deployment_options
    from ..serve.ray.need import find_need
    from ..serve.ray.options import ScaleOptions
    from ..serve.ray.settings import ModelSettings, ReplicaSettings

    scale = ScaleOptions(**choice.scale)
    need = find_need(
        source.directories,
        scale,
        backend=source.backend,
        plan=source.plan,
        threads=source.threads,
        slots=source.slots,
    )
    token_file = source.token_file
    settings = ReplicaSettings(
        models=tuple(
            ModelSettings(path=str(model.path), plan=model.plan, digest=model.digest)
            for model in need.models
        ),
        slots=source.slots,
        threads=need.threads,
        max_queue=source.max_queue,
        max_delay_ms=source.max_delay_ms,
        deadline_ms=source.deadline_ms,
        max_image_pixels=source.max_image_pixels,
        drain_s=options.drain_s,
        body_bytes=options.limits.body_bytes,
        token_file=None if token_file is None else str(token_file.absolute()),
        need_token=options.token is not None,
    )
    return need, settings, deployment_options(scale, need, settings)


def _show(common: Common, plan: Plan, source: RaySource) -> None:
    """Say where the cluster answers."""
    options, models = plan.options, [Path(model.path).name for model in plan.settings.models]
    url = f"http://{options.host}:{options.port}"
    target = None if options.grpc_port is None else f"{options.host}:{options.grpc_port}"
    from ..serve.ray.config import wire_warnings
    from ..serve.security.bind import resolve_host

    warnings = wire_warnings(options)
    document = {
        "url": url,
        "grpc": target,
        "pid": os.getpid(),
        "models": models,
        "replicas": plan.least,
        "warnings": warnings,
    }
    if common.output.as_json:
        click.echo(json.dumps(document))
        return
    cpus, gpus = plan.size
    rows: list[tuple[str, str | Text]] = [("REST", url)]
    if target is not None:
        rows.append(("gRPC", f"{target}, and every other address of each node"))
    rows.append(("replicas", f"{plan.least}, each with {_size_text(cpus, gpus)}"))
    rows += [(Path(model.path).name, f"plan {model.plan}") for model in plan.settings.models]
    drawing: list[RenderableType] = [
        render.heading("serving on Ray", ", ".join(models)),
        render.facts(rows),
    ]
    if warnings:
        drawing += ["", *render.lines("!", "warn", warnings)]
    address = resolve_host(options.host)
    curl = curl_command(options, address, options.port or 0, models[0], source.token_file)
    common.output.result(document, *drawing, "", render.next_step((curl, "")))
    sys.stdout.flush()


def _size_text(cpus: float, gpus: float) -> str:
    cores = f"{cpus:g} core{'' if cpus == 1 else 's'}"
    return f"{cores} and {gpus:g} GPU{'' if gpus == 1 else 's'}"


def _show_file(common: Common, path: Path, settings: ReplicaSettings, need: Need) -> None:
    document = {
        "file": str(path),
        "models": [model.path for model in settings.models],
        "cpus": need.cpus,
        "gpus": need.gpus,
    }
    common.output.result(
        document,
        render.heading("Ray Serve", f"configuration in {render.printable(path)}"),
        render.facts([("each replica", _size_text(need.cpus, need.gpus))]),
        "",
        render.next_step((f"serve deploy {path}", "on the head node of the cluster")),
    )
