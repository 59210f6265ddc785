"""Writes a deployment into a Triton model repository."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .. import __version__
from ..deployment import Deployment, step_key
from ..errors import DeploymentChangedError, DeploymentCorruptError, SpecError
from ..preprocess import Preprocessing
from ..signing.trust import admit, find_trust
from ..steps import Progress, StepResult
from ..storage.names import MANIFEST, SIGNATURE
from .config import LABELS_FILE, render_config, takes_encoded
from .options import TritonOptions
from .repository import read_export, write_model
from .source import Source, choose_source

VERSION = "1"
DEPLOYMENT_FOLDER = "deployment"
ENGINE_FILES = {"onnxruntime": "model.onnx", "tensorrt": "model.plan"}

MODEL_PY = '''\
"""Serves the deployment beside this file in Triton's python backend. Written by parnet-deploy."""

try:
    from parnet_deploy.triton.python_model import TritonPythonModel
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"package {error.name}: not installed in Triton's Python. Run there: "
        "pip install 'parnet-deploy[cpu,images]'.",
        name=error.name,
    ) from error

__all__ = ["TritonPythonModel"]
'''


def export_to_repository(
    directory: str | Path,
    repository: str | Path,
    options: TritonOptions | None = None,
    on_stage: Progress = lambda text: None,
) -> StepResult:
    """Write ``repository/<name>``; skipped if the same is there already, unchanged.

    Args:
        directory: The deployment, with a plan.
        repository: Triton's ``--model-repository``; made if it is missing.
        options: How to serve.
        on_stage: Called with short texts.

    Returns: ``path`` is the model's directory. The report: name, kind, plan, backend, precision,
        max_batch, inputs, files (name -> sha256).

    Raises:
        DeploymentError: There is no plan that Triton can run in this way, a file of the deployment
            was changed, keys are trusted and none of them has signed it, or the model's directory
            holds something else. What was there stays.
    """
    chosen = options or TritonOptions()
    target = Path(repository)
    trust = find_trust()
    return Deployment.read(
        directory, lambda opened: _export(admit(opened, trust), target, chosen, on_stage)
    )


def _export(
    opened: Deployment, repository: Path, options: TritonOptions, on_stage: Progress
) -> StepResult:
    _check_preprocessing(opened)
    source = choose_source(opened, options)
    model = repository / opened.name
    on_stage(f"looking at {model}")
    before = read_export(model)
    record = _record(source)
    if before is not None and before.get("key") == record["key"]:
        return StepResult(path=model, skipped=True, report=_report(before))
    on_stage(f"writing {model}")
    found = write_model(model, lambda folder: _fill(folder, source), record)
    return StepResult(path=model, skipped=False, report=_report(found))


def _record(source: Source) -> dict[str, Any]:
    opened, options, plan = source.deployment, source.options, source.plan
    signature = opened.read_signature()
    key = step_key(
        digest=opened.digest,
        options=options.to_json(),
        version=__version__,
        name=opened.name,
        signature=None if signature is None else signature.value.hex(),
    )
    return {
        "key": key,
        "digest": opened.digest,
        "options": options.to_json(),
        "writer": f"parnet-deploy {__version__}",
        "name": opened.name,
        "kind": options.kind,
        "plan": source.found.key,
        "backend": plan.backend,
        "precision": plan.precision,
        "max_batch": plan.max_batch,
        "inputs": ["image", "encoded_image"] if takes_encoded(source) else ["image"],
    }


def _report(record: Mapping[str, Any]) -> dict[str, Any]:
    inner = {"key", "digest", "options", "writer", "schema_version", "sha256"}
    return {name: value for name, value in record.items() if name not in inner}


def _fill(folder: Path, source: Source) -> None:
    opened, kind = source.deployment, source.options.kind
    (folder / "config.pbtxt").write_text(render_config(source), encoding="utf-8")
    if opened.labels is not None:
        lines = (
            " ".join(label.split()) for label in opened.labels
        )  # one line each, whatever it is
        (folder / LABELS_FILE).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    version = folder / VERSION
    version.mkdir()
    if kind == "python":
        (version / "model.py").write_text(MODEL_PY, encoding="utf-8")
        copy_deployment(opened, version / DEPLOYMENT_FOLDER)
        return
    (engine,) = source.plan.engines.values()
    content = opened.read_bytes(f"plans/{source.found.key}/{engine}")
    (version / ENGINE_FILES[kind]).write_bytes(content)


def copy_deployment(opened: Deployment, target: Path) -> None:
    """Copy manifest, signature and artifacts, each checked as it is read; no foreign files.

    Raises:
        DeploymentCorruptError: An artifact is not the one that was written.
        DeploymentChangedError: Another command rewrote the deployment meanwhile.
    """
    target.mkdir()
    for name in sorted(opened.artifacts):
        path = target / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(opened.read_bytes(name))
    (target / MANIFEST).write_bytes((opened.path / MANIFEST).read_bytes())
    signature = opened.read_signature()
    if signature is not None:
        (target / SIGNATURE).write_bytes(signature.render())
    if Deployment.open(target).digest != opened.digest:
        raise DeploymentChangedError(
            f"deployment {opened.path}: it was rewritten while it was copied. Run it again."
        )


def _check_preprocessing(opened: Deployment) -> None:
    if opened.preprocessing is None:
        return
    try:
        Preprocessing.from_json(opened.preprocessing)
    except SpecError as error:
        raise DeploymentCorruptError(
            f"deployment {opened.path}: {error} Build it again: parnet-deploy fuse model.pt."
        ) from error
