"""The verb ``serve``."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .chain import ensure_built, needs
from .options import DEPLOYMENT_METAVAR, Common, FiniteRange, verb
from .serve_guard import Guard, guard_options
from .serve_ray import RayChoice, RaySource, ray_options, serve_on_ray
from .serve_ready import show

if TYPE_CHECKING:
    from ..serve.server.deployments import DeploymentServer
    from ..serve.server.options import ServerOptions

_PACKAGE = __package__.partition(".")[0]
_READABLE = click.Path(dir_okay=False, path_type=Path)
_GROUPS = ("hardware", "gpu", "conflicts", "limits")  # of what doctor finds
_PORT = click.IntRange(0, 65535)
_EPILOG = """\b
Examples:
  parnet-deploy serve
  parnet-deploy serve digits --port 8000 --grpc-port 8001
  parnet-deploy serve --host 0.0.0.0 --token-file token --tls-cert cert.pem --tls-key key.pem
  parnet-deploy serve --ray --replicas 4 --ray-address head:6379 --token-file token

\b
A port of 0 is any free one. The token may also be in the variable PARNET_DEPLOY_TOKEN. The
questions v2/health/live and v2/health/ready need none.

\b
SIGTERM and SIGINT stop it when what it has is answered; a second one at once. SIGHUP takes
deployments into service that were changed on disk.

\b
JSON: one line when it is ready: url, grpc, metrics (null: not there), pid, models, warnings.
"""


@click.command(epilog=_EPILOG)
@click.argument("deployments", nargs=-1, metavar=f"{DEPLOYMENT_METAVAR}...")
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Address or name to listen at."
)
@click.option(
    "--port",
    type=_PORT,
    default=8000,
    show_default=True,
    help="Where REST is answered; 0: any free port.",
)
@click.option(
    "--grpc-port",
    type=_PORT,
    default=8001,
    show_default=True,
    help="Where gRPC is answered; 0: any free port.",
)
@click.option("--no-rest", is_flag=True, help="Only gRPC.")
@click.option("--no-grpc", is_flag=True, help="Only REST.")
@click.option("--metrics-port", type=_PORT, help="/metrics on 127.0.0.1 alone, without a token.")
@click.option("--backend", help="Take engines of this backend only.")
@click.option("--plan", metavar="KEY", help="Take this plan; inspect lists them.")
@click.option(
    "--slots",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Runs that go on at the same time, each with buffers and threads of its own.",
)
@click.option(
    "--threads",
    type=click.IntRange(1),
    help="Cores for the engines of each slot.  [default: as built, else all]",
)
@click.option(
    "--max-queue",
    type=click.IntRange(0),
    default=64,
    show_default=True,
    help="Images that may wait; more are refused.",
)
@click.option(
    "--max-delay-ms",
    type=FiniteRange(0),
    default=0.0,
    show_default=True,
    help="How long a request may wait for others to share its batch.",
)
@click.option(
    "--deadline-ms",
    type=FiniteRange(1),
    default=10_000.0,
    show_default=True,
    help="A request that cannot be answered in this time is refused at once.",
)
@click.option(
    "--max-body-mib",
    type=click.IntRange(1, 1024),
    default=16,
    show_default=True,
    help="The largest body of a request that is taken.",
)
@click.option(
    "--max-image-mpix",
    type=click.IntRange(1, 89),
    default=24,
    show_default=True,
    help="Million pixels of an encoded image.",
)
@click.option("--token-file", type=_READABLE, help="The token that clients must send.")
@click.option("--tls-cert", type=_READABLE, help="Certificate chain (PEM).")
@click.option("--tls-key", type=_READABLE, help="Its key (PEM).")
@click.option(
    "--tls-client-ca",
    type=_READABLE,
    help="Only clients with a certificate of this authority (PEM).",
)
@click.option("--insecure", is_flag=True, help="Listen anywhere without token and TLS.")
@click.option(
    "--drain-seconds",
    type=FiniteRange(0),
    default=30.0,
    show_default=True,
    help="How long requests may take to finish once it is told to stop.",
)
@click.option(
    "--watch",
    type=FiniteRange(0.1),
    metavar="SECONDS",
    help="Look this often for deployments that were changed on disk, and take them.",
)
@guard_options
@click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="Of what is logged on stderr.",
)
@ray_options
@verb
def command(
    common: Common,
    deployments: tuple[str, ...],
    ray: RayChoice | None,
    backend: str | None,
    plan: str | None,
    slots: int,
    threads: int | None,
    max_queue: int,
    max_delay_ms: float,
    deadline_ms: float,
    max_image_mpix: int,
    drain_seconds: float,
    watch: float | None,
    guard: Guard,
    log_format: str,
    **listen: Any,
) -> None:
    """Serve deployments by the Open Inference Protocol v2: REST and gRPC.

    Clients of Triton and KServe work unchanged. It listens on this machine only, unless there is a
    token or TLS. Engines that are missing are built first. -v logs every request, not only those
    that are refused.
    """
    from ..doctor.findings import examine
    from ..serve.server.grpc_threads import keep_quiet, read_in_poller

    read_in_poller()
    keep_quiet()
    with needs("serve"):
        from ..serve.model.options import ModelOptions
        from ..serve.server.deployments import DeploymentServer
        from ..serve.server.process import serve_until_stopped
        from ..serve.service.options import ServiceOptions
        from ..serve.shells.telemetry import find_tracer

    _log_as(log_format)
    tracer = find_tracer()
    options = _server_options(drain_s=drain_seconds, **listen)
    if ray is not None and watch is not None:
        raise click.UsageError("--watch is not for a Ray cluster. Send SIGHUP after a change.")
    if ray is not None:
        guard.refuse_on_ray()
    options.address()  # what cannot be, before anything is built
    service_options = ServiceOptions(
        max_queue=max_queue,
        max_delay_ms=max_delay_ms,
        deadline_s=deadline_ms / 1e3,
        max_image_pixels=max_image_mpix * 1_000_000,
        prove_every_s=guard.prove_every_s,
    )
    if ray is not None:
        ray.check(options)
    names: Sequence[str | None] = deployments or (None,)
    directories = [common.find(name) for name in names]
    _check_names(directories)
    for directory in directories:
        if plan is None:
            ensure_built(directory, common.output, backend=backend)
    if ray is not None:
        source = RaySource(
            directories=directories,
            backend=backend,
            plan=plan,
            slots=slots,
            threads=threads,
            max_queue=max_queue,
            max_delay_ms=max_delay_ms,
            deadline_ms=deadline_ms,
            max_image_pixels=max_image_mpix * 1_000_000,
            token_file=listen["token_file"],
        )
        _end(common, drained=serve_on_ray(common, ray, source, options))
        return
    models = [
        ModelOptions(
            path=path,
            backend=backend,
            plan=plan,
            slots=slots,
            threads=threads,
            timeout_s=guard.timeout_s,
            check_finite=guard.check_finite,
        )
        for path in directories
    ]
    findings = [found for found in examine(common.root) if found.group in _GROUPS]
    made: list[DeploymentServer] = []

    def make_server() -> DeploymentServer:
        made.append(DeploymentServer(models, options, service_options, tracer=tracer))
        return made[0]

    async def reload(asked: bool) -> list[str]:
        changed = await made[0].reload(again=asked)
        for name in changed:
            common.output.note(f"{name}: the deployment of now answers")
        return changed

    drained = serve_until_stopped(
        make_server,
        on_ready=lambda server: show(common, made[0], options, findings, listen["token_file"]),
        reload=reload,
        watch_s=watch,
    )
    _end(common, drained=drained)


def _check_names(directories: Sequence[Path]) -> None:
    """Refuse two of one name before anything is built.

    Raises:
        SpecError: A name is there twice.
    """
    from ..errors import SpecError

    found: dict[str, Path] = {}
    for directory in directories:
        name = directory.resolve().name
        first = found.setdefault(name, directory)
        if first is directory:
            continue
        if first.resolve() == directory.resolve():
            raise SpecError(f"models: got {directory} twice, expected it once. Leave one out.")
        raise SpecError(
            f"models: got {first} and {directory}, both named {name}, expected different names. "
            "Rename one directory."
        )


def _end(common: Common, *, drained: bool) -> None:
    common.output.note("stopped" if drained else "stopped at once")
    if not drained:
        raise click.exceptions.Exit(130)


def _server_options(
    *,
    host: str,
    port: int,
    grpc_port: int,
    no_rest: bool,
    no_grpc: bool,
    metrics_port: int | None,
    max_body_mib: int,
    token_file: Path | None,
    tls_cert: Path | None,
    tls_key: Path | None,
    tls_client_ca: Path | None,
    insecure: bool,
    drain_s: float,
) -> ServerOptions:
    from ..serve.security.limits import MIB, Limits
    from ..serve.security.tls import TlsFiles
    from ..serve.security.token import read_token
    from ..serve.server.options import ServerOptions

    tls = None
    if tls_cert is not None and tls_key is not None:
        tls = TlsFiles(certificate=tls_cert, key=tls_key, client_ca=tls_client_ca)
    elif (tls_cert, tls_key, tls_client_ca) != (None, None, None):
        raise click.UsageError("TLS needs --tls-cert and --tls-key; --tls-client-ca comes on top.")
    return ServerOptions(
        host=host,
        port=None if no_rest else port,
        grpc_port=None if no_grpc else grpc_port,
        metrics_port=metrics_port,
        token=read_token(token_file),
        tls=tls,
        insecure=insecure,
        limits=Limits(body_bytes=max_body_mib * MIB),
        drain_s=drain_s,
    )


def _log_as(log_format: str) -> None:
    from ..serve.shells.logs import JsonFormatter, TextFormatter

    package = logging.getLogger(_PACKAGE)
    if log_format == "text":
        for handler in package.handlers:
            handler.setFormatter(TextFormatter())
        return
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    package.handlers = [handler]
