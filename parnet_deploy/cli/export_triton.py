"""The verb ``export-triton``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import RenderableType

from . import render
from .chain import ensure_built
from .options import Common, deployment_argument, verb

if TYPE_CHECKING:
    from ..steps import StepResult
    from ..triton.options import Kind, TritonOptions

_KINDS = ("python", "onnxruntime", "tensorrt")
_SERVERS = ("triton", "parnet-deploy")

_EPILOG = """\b
Examples:
  parnet-deploy export-triton --to models/
  parnet-deploy export-triton digits --to models/ --kind onnxruntime --replicas 2
  parnet-deploy export-triton digits --to models/ --kserve digits.yaml --storage-uri s3://b/models

\b
Kinds: python answers tensors and JPEG or PNG files, with any plan, and needs parnet_deploy in
Triton's Python. onnxruntime and tensorrt hand one engine to Triton's own backend, and need nothing.

\b
With one replica requests run one by one, with the least latency: Triton's batcher would now and
then wait half a second. From two on they are batched, and those that may wait are bounded.

\b
JSON: deployment, name, model, skipped, report (name, kind, plan, backend, precision, max_batch,
inputs, files), kserve.
"""


@click.command(epilog=_EPILOG)
@deployment_argument
@click.option(
    "--to",
    "repository",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Triton's model repository; made if it is missing.",
)
@click.option("--kind", type=click.Choice(_KINDS), default="python", show_default=True)
@click.option("--plan", metavar="KEY", help="Take this plan; inspect lists them.")
@click.option("--replicas", type=click.IntRange(1), default=1, show_default=True)
@click.option(
    "--batching/--no-batching",
    default=None,
    help="Triton's dynamic batcher and bounded queue.  [default: from 2 replicas on]",
)
@click.option(
    "--max-delay-ms",
    type=click.FloatRange(0, 60_000),
    default=0.0,
    show_default=True,
    help="How long a request may wait to be batched with others.",
)
@click.option(
    "--max-queue",
    type=click.IntRange(0),
    default=64,
    show_default=True,
    help="Requests that may wait; more are refused. 0: no limit.",
)
@click.option(
    "--deadline-ms",
    type=click.FloatRange(0, 2_000_000),
    default=10_000.0,
    show_default=True,
    help="How long one may wait before it is refused. 0: no limit.",
)
@click.option(
    "--cuda-graphs/--no-cuda-graphs", default=True, help="For --kind tensorrt.  [default: on]"
)
@click.option(
    "--kserve",
    "kserve_file",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write a KServe InferenceService too.",
)
@click.option("--storage-uri", metavar="URI", help="For --kserve: where the cluster finds it.")
@click.option(
    "--kserve-server",
    type=click.Choice(_SERVERS),
    default="triton",
    show_default=True,
    help="For --kserve: Triton, or our own server.",
)
@click.option("--image", help="For --kserve: the container image.")
@click.option("--gpus", type=click.IntRange(0), default=0, help="For --kserve: GPUs a replica.")
@click.option(
    "--token-secret", metavar="NAME", help="For our own server: the secret with the token."
)
@verb
def command(
    common: Common,
    deployment: str | None,
    repository: Path,
    kserve_file: Path | None,
    storage_uri: str | None,
    kserve_server: str,
    image: str | None,
    gpus: int,
    token_secret: str | None,
    **chosen: Any,
) -> None:
    """Write a model repository that a Triton Inference Server loads."""
    if kserve_file is not None and storage_uri is None:
        raise click.UsageError("--kserve needs --storage-uri: where the cluster finds the files.")
    if kserve_file is None and any((storage_uri, image, token_secret)):
        raise click.UsageError("--storage-uri, --image, --token-secret are for --kserve FILE.")
    if kserve_file is not None and kserve_server == "parnet-deploy" and image is None:
        raise click.UsageError(
            "--kserve-server parnet-deploy needs a container image. Add --image IMAGE."
        )
    options = _options(**chosen)
    directory = common.find(deployment)
    service = None
    if storage_uri is not None:
        from ..triton.kserve import KserveOptions, render_service

        about: dict[str, Any] = {"server": kserve_server, "storage_uri": storage_uri}
        kserve = KserveOptions(**about, image=image, gpus=gpus, token_secret=token_secret)
        service = render_service(directory.resolve().name, kserve)
    _ensure_plan(common, directory, options.kind, options.plan)
    from ..triton.export import export_to_repository

    with common.output.progress("export-triton") as report:
        result = export_to_repository(directory, repository, options, on_stage=report)
    if kserve_file is not None and service is not None:
        _write(kserve_file, service)
    what = directory if kserve_server == "parnet-deploy" else repository
    upload = f"what is in {what}, to {storage_uri}"
    document = {
        "deployment": str(directory),
        "name": result.report["name"],
        "model": str(result.path),
        "skipped": result.skipped,
        "report": result.report,
        "kserve": kserve_file and str(kserve_file),
    }
    common.output.result(document, *_draw(result, repository, kserve_file, upload))


def _options(
    kind: Kind,
    plan: str | None,
    replicas: int,
    batching: bool | None,
    max_delay_ms: float,
    max_queue: int,
    deadline_ms: float,
    cuda_graphs: bool,
) -> TritonOptions:
    from ..triton.options import TritonOptions

    return TritonOptions(
        kind=kind,
        plan=plan,
        replicas=replicas,
        batching=batching,
        queue_delay_us=round(max_delay_ms * 1000),
        queue_size=max_queue,
        timeout_us=round(deadline_ms * 1000),
        cuda_graphs=cuda_graphs,
    )


def _ensure_plan(common: Common, directory: Path, kind: Kind, plan: str | None) -> None:
    """Build what is missing: any plan for "python", else one engine of the kind's backend."""
    if plan is not None:
        return
    if kind == "python":
        ensure_built(directory, common.output)
        return
    from ..deployment import Deployment
    from ..triton.source import has_engine

    if not has_engine(Deployment.open(directory), kind):
        ensure_built(directory, common.output, backend=kind, placement="one")


def _write(path: Path, text: str) -> None:
    """Write the file, replacing what was there."""
    from ..errors import DeploymentError

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise DeploymentError(
            f"file {path}: got {error.strerror or error}, expected a writable path. "
            "Choose another one with --kserve."
        ) from error


def _draw(
    result: StepResult, repository: Path, kserve: Path | None, upload: str
) -> list[RenderableType]:
    report = result.report
    how = "unchanged, nothing to do" if result.skipped else "exported"
    rows = [
        ("kind", report["kind"]),
        ("plan", f"{report['plan']}, {report['backend']}, {report['precision']}"),
        ("inputs", f"{' or '.join(report['inputs'])}, batch up to {report['max_batch']}"),
    ]
    if kserve is not None:
        rows += [("kserve", str(kserve)), ("upload", upload)]
    then = [(f"tritonserver --model-repository={repository.absolute()}", "serve it")]
    if kserve is not None:
        then.append((f"kubectl apply -f {kserve}", "serve it on Kubernetes"))
    return [
        render.heading(report["name"], f"{how}, in {render.printable(result.path)}"),
        render.facts(rows),
        "",
        render.next_step(*then),
    ]
