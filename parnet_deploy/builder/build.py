"""The step ``build``: engines for a placement, proved, measured and published as a plan."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from .. import __version__
from ..deployment import Deployment, step_key
from ..errors import DeploymentChangedError, DeploymentError, ParnetDeployError, SpecError
from ..machine.cores import usable_cores
from ..machine.describe import machine_key, package_versions
from ..plan import CANARY_FILE, PLAN_FILE, PLAN_SCHEMA, Plan
from ..reference import REFERENCE, Reference
from ..steps import Progress, StepResult, read_reference, write_report
from ..storage.scratch import scratch_folder
from .candidates import Candidate, cpu_candidates, device_candidates
from .fresh import measure_fresh
from .gpus import choose_backend, installed_backends
from .make import exported_size, open_workshop
from .mixing import propose_mixes
from .options import AUTO_BACKEND, CPU_BACKENDS, BuildOptions
from .planner import Built, Measure, choose_fastest, choose_predicted, measure_together
from .precisions import AUTO, FLOAT32, Source, find_sources, source_of

__all__ = ["BuildOptions", "build_to_deployment", "choose_backend"]

BUILD_VERSION = 1  # raise when the same inputs would give other engines


def build_to_deployment(
    directory: Path,
    options: BuildOptions | None = None,
    *,
    on_stage: Progress = lambda text: None,
) -> StepResult:
    """Build the engines that the options ask for and publish the fastest as a plan.

    Args:
        directory: The deployment, exported.
        options: Choices of the user.
        on_stage: Called with what is being done, for progress.

    Raises:
        DeviceUnavailableError: GPUs were asked for that this machine, or version, cannot use.
        CheckFailedError: An engine differs from the reference. Nothing was published.
        BackendError: The backend cannot build or load an engine.
        DeploymentError: The deployment is not exported, or cannot be written.
    """
    options = choose_backend(options or BuildOptions())
    deployment = Deployment.open(directory)
    plan_key = options.plan_key
    key = _step_key(deployment, options)
    step = f"build:{plan_key}"
    if deployment.is_current(step, key) and not options.rebuild:
        report = json.loads(deployment.read_bytes(f"plans/{plan_key}/{PLAN_FILE}"))
        return StepResult(path=directory, skipped=True, report={"plan": plan_key, **report})
    with _scratch_folder() as scratch:
        reference = read_reference(deployment)
        best, measured = _build_best(deployment, options, reference, scratch, on_stage)
        plan, folder = replace(best.plan, measured=measured), best.folder
        report = plan.to_json()
        with Deployment.edit(directory) as txn:
            if _step_key(Deployment.open(directory), options) != key:
                raise DeploymentChangedError(
                    f"deployment {directory}: other graphs were exported while these were built. "
                    "Run: parnet-deploy build."
                )
            for file in plan.engines.values():
                shutil.copyfile(folder / file, txn.stage(f"plans/{plan_key}/{file}"))
            canary = txn.stage(f"plans/{plan_key}/{CANARY_FILE}")
            source = source_of(plan.backend, plan.precision)
            canary.write_bytes(deployment.read_bytes(source.reference))
            write_report(txn.stage(f"plans/{plan_key}/{PLAN_FILE}"), report)
            txn.finish_step(
                step,
                key=key,
                options=options.to_json(),
                versions=package_versions() | {"parnet_deploy": __version__},
                made_from={"export"}
                | {source.step for source in _all_sources(deployment, options)},
                plans={plan_key: _summary(plan)},
            )
    return StepResult(path=directory, skipped=False, report={"plan": plan_key, **report})


@contextmanager
def _scratch_folder() -> Iterator[Path]:
    """A folder for engines that are not proved yet.

    Raises:
        DeploymentError: The disk is full, or there is no writable folder for temporary files.
    """
    try:
        with scratch_folder("parnet-build-") as folder:
            yield folder
    except OSError as error:
        where = error.filename or tempfile.gettempdir()
        raise DeploymentError(
            f"temporary folder {where}: got {error.strerror or error}, expected room for the "
            "engines. Free some space or set TMPDIR to another folder. Nothing was published."
        ) from error


def _build_best(
    deployment: Deployment,
    options: BuildOptions,
    reference: Reference,
    scratch: Path,
    on_stage: Progress,
) -> tuple[Built, Mapping[str, Any]]:
    """Build the candidates, and take the fastest; simulated ones by arithmetic, before building."""
    spec = deployment.spec
    sources = _all_sources(deployment, options)
    several = options.backend == AUTO_BACKEND
    candidates = [
        replace(candidate, precision=source.precision, backend=backend if several else None)
        for backend, found in _sources(deployment, options).items()
        for source in found
        for candidate in _candidates(deployment, options, backend)
    ]
    if several:
        candidates.sort(key=lambda candidate: not candidate.single)  # what the others must beat
    if options.backend == "fake":
        chosen, table = choose_predicted(spec, candidates, exported_size(deployment))
        workshop = open_workshop(deployment, options, sources, scratch, on_stage)
        return workshop.build(chosen), table
    workshop = open_workshop(deployment, options, sources, scratch, on_stage)
    built, left_out = workshop.build_all(candidates)
    if not several:
        measure: Measure = partial(measure_together, image=reference.image)
        return choose_fastest(spec, built, measure, on_stage, left_out)
    if options.placement == "auto":
        more, out = workshop.try_all(propose_mixes(workshop, built, on_stage))
        built, left_out = [*built, *more], [*left_out, *out]
    measure = partial(measure_fresh, reference=reference)
    return choose_fastest(spec, built, measure, on_stage, left_out)


def _sources(deployment: Deployment, options: BuildOptions) -> dict[str, tuple[Source, ...]]:
    """What each backend of the build is built from.

    Raises:
        SpecError: No backend has kernels for the precision.
        DeploymentError: The deployment has no graphs for it: it must be calibrated first.
    """
    assert options.backend is not None  # ``choose_backend`` has filled it in
    if options.backend != AUTO_BACKEND:
        return {options.backend: find_sources(deployment, options.backend, options.precision)}
    found: dict[str, tuple[Source, ...]] = {}
    refused: list[ParnetDeployError] = []
    for backend in installed_backends():
        try:
            found[backend] = find_sources(deployment, backend, options.precision)
        except (SpecError, DeploymentError) as error:
            refused.append(error)
            if options.precision == AUTO:
                found[backend] = (FLOAT32,)  # the others may have more
    if len(refused) == len(installed_backends()):
        raise refused[0]
    return found


def _all_sources(deployment: Deployment, options: BuildOptions) -> tuple[Source, ...]:
    """Every source of any backend, once."""
    every = [source for found in _sources(deployment, options).values() for source in found]
    return tuple(dict.fromkeys(every))


def _candidates(
    deployment: Deployment, options: BuildOptions, backend: str
) -> tuple[Candidate, ...]:
    spec, name, cores = deployment.spec, options.placement, usable_cores()
    if backend not in CPU_BACKENDS:
        aux = 0 if backend == "onnxruntime-cuda" else options.aux_streams
        return device_candidates(spec, name, options.devices, aux_streams=aux)
    if options.threads is not None and options.threads > cores:
        raise SpecError(
            f"threads: got {options.threads}, expected at most {cores}, the cores that this "
            "process may use."
        )
    return cpu_candidates(spec, name, threads=options.threads, cores=cores)


def _step_key(deployment: Deployment, options: BuildOptions) -> str:
    graphs = [f"onnx/{part.name}.onnx" for part in deployment.spec.parts]
    missing = [name for name in (*graphs, REFERENCE) if name not in deployment.artifacts]
    if missing:
        raise DeploymentError(
            f"deployment {deployment.path}: got no {missing[0]}, expected exported parts. "
            "Run: parnet-deploy export."
        )
    used = [
        name for source in _all_sources(deployment, options) for name in source.files(deployment)
    ]
    return step_key(
        version=BUILD_VERSION,
        plan_schema=PLAN_SCHEMA,
        graphs={name: deployment.artifacts[name]["sha256"] for name in (*used, REFERENCE)},
        options=options.to_json(),
        machine=machine_key(),
        packages=package_versions(),
    )


def _summary(plan: Plan) -> Mapping[str, Any]:
    return {
        "backend": plan.backend,
        "placement": plan.placement.name,
        "aux_streams": plan.made["aux_streams"],
        "threads": plan.threads,
        "precision": plan.precision,
        "devices": list(plan.placement.devices),
        "median_ms": plan.median_ms,
        "built": plan.made["built"],
    }
