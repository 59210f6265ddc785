"""The step ``build``: engines for a placement, proved, measured and published as a plan."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import onnx

from .. import __version__
from ..deployment import Deployment, step_key
from ..errors import (
    DeploymentChangedError,
    DeploymentError,
    DeviceUnavailableError,
    SpecError,
)
from ..plan import CANARY_FILE, PLAN_FILE, PLAN_SCHEMA, Plan
from ..reference import REFERENCE, Reference, random_image
from ..runtime.backend import backend_rank
from ..runtime.cores import usable_cores
from ..runtime.machine import describe_machine, machine_key, package_versions, probe_gpus
from ..runtime.session import Runtime
from ..spec import IMAGE, LOGITS, ModelSpec
from ..steps import Progress, StepResult, read_reference, write_report
from .candidates import Candidate, cpu_candidates, device_candidates
from .onnx_merge import merge_segment
from .planner import Built, choose_fastest, engine_files
from .precisions import Source, check_precision, find_sources, source_of
from .verify import Arrays, part_values, verify_engines, verify_whole

BUILD_VERSION = 1  # raise when the same inputs would give other engines


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """What the user may choose. ``threads`` None means every usable core."""

    backend: str | None = None
    placement: str = "auto"
    gpus: tuple[int, ...] = ()
    threads: int | None = None
    max_batch: int = 8
    precision: str = "fp32"

    def __post_init__(self) -> None:
        check_precision(self.precision)
        if self.max_batch < 1:
            raise SpecError(f"max batch: got {self.max_batch}, expected 1 or more.")
        if self.threads is not None and self.threads < 1:
            raise SpecError(f"threads: got {self.threads}, expected 1 or more.")

    @property
    def plan_key(self) -> str:
        """Name of the plan that these options give: a new build replaces it."""
        where = "-gpus" + "+".join(map(str, self.gpus)) if self.gpus else ""
        cores = f"-{self.threads}threads" if self.threads else ""
        return f"{self.backend}-{self.precision}-{self.placement}{where}{cores}"


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
    if deployment.is_current(step, key):
        report = json.loads(deployment.read_bytes(f"plans/{plan_key}/{PLAN_FILE}"))
        return StepResult(path=directory, skipped=True, report={"plan": plan_key, **report})
    with _scratch_folder() as scratch:
        reference = read_reference(deployment)
        built = _build_all(deployment, options, scratch, on_stage)
        best, measured = choose_fastest(deployment.spec, built, reference.image, on_stage)
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
                options=asdict(options) | {"gpus": list(options.gpus)},
                versions=package_versions() | {"parnet_deploy": __version__},
                made_from={"export"} | {source.step for source in _sources(deployment, options)},
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
        with tempfile.TemporaryDirectory(prefix="parnet-build-") as folder:
            yield Path(folder)
    except OSError as error:
        where = error.filename or tempfile.gettempdir()
        raise DeploymentError(
            f"temporary folder {where}: got {error.strerror or error}, expected room for the "
            "engines. Free some space or set TMPDIR to another folder. Nothing was published."
        ) from error


def choose_backend(options: BuildOptions) -> BuildOptions:
    """Fill in the backend, and refuse GPUs that nothing here can use.

    Raises:
        DeviceUnavailableError: With the way that works on this machine.
        BackendError: There is no backend of this name.
    """
    backend = options.backend
    if backend is not None:
        backend_rank(backend)
    if options.gpus and backend in (None, "onnxruntime"):
        asked = ",".join(map(str, options.gpus))
        count, why = probe_gpus()
        reason = why or f"{count} here, but this version has no backend for GPUs yet"
        raise DeviceUnavailableError(
            f"--gpus {asked}: {reason}. On the CPU run: parnet-deploy build; "
            f"to simulate the GPUs: parnet-deploy build --gpus {asked} --backend fake."
        )
    return replace(options, backend=backend or "onnxruntime")


def _build_all(
    deployment: Deployment,
    options: BuildOptions,
    scratch: Path,
    on_stage: Progress,
) -> list[Built]:
    """Merge, write and prove every candidate in every precision that is asked for."""
    built = []
    for source in _sources(deployment, options):
        folder = scratch / source.precision
        folder.mkdir()
        built += _build_precision(deployment, options, source, folder, on_stage)
    return built


def _build_precision(
    deployment: Deployment,
    options: BuildOptions,
    source: Source,
    scratch: Path,
    on_stage: Progress,
) -> list[Built]:
    spec = deployment.spec
    graphs = {
        part.name: onnx.load_from_string(deployment.read_bytes(f"{source.folder}/{part.name}.onnx"))
        for part in spec.parts
    }
    proofs = _references(deployment, source)
    built = []
    for candidate in _candidates(deployment, options):
        folder = scratch / candidate.placement.name
        on_stage(f"building {candidate.label}, {source.precision}")
        if not folder.exists():  # candidates may differ in threads only
            folder.mkdir()
            for segment in candidate.placement.segments:
                data = merge_segment(segment, spec, graphs).SerializeToString(deterministic=True)
                (folder / f"{segment.name}.onnx").write_bytes(data)
        plan = _plan(deployment, options, candidate, source)
        on_stage(f"proving {candidate.label}")
        checks = _prove(spec, plan, folder, proofs, source.tolerance)
        plan = replace(plan, made={**plan.made, "checks": checks})
        built.append(Built(candidate=candidate, plan=plan, folder=folder))
    return built


def _candidates(deployment: Deployment, options: BuildOptions) -> tuple[Candidate, ...]:
    spec, name, cores = deployment.spec, options.placement, usable_cores()
    if options.backend == "fake":
        return device_candidates(spec, name, options.gpus or (0,))
    if options.threads is not None and options.threads > cores:
        raise SpecError(
            f"threads: got {options.threads}, expected at most {cores}, the cores that this "
            "process may use."
        )
    return cpu_candidates(spec, name, threads=options.threads, cores=cores)


def _sources(deployment: Deployment, options: BuildOptions) -> tuple[Source, ...]:
    return find_sources(deployment, options.backend or "onnxruntime", options.precision)


def _plan(
    deployment: Deployment, options: BuildOptions, candidate: Candidate, source: Source
) -> Plan:
    size = deployment.input_size
    if size is None or options.backend is None:
        raise DeploymentError(
            f"deployment {deployment.path}: it is not exported. Run: parnet-deploy export."
        )
    return Plan(
        backend=options.backend,
        placement=candidate.placement,
        input_size=size,
        max_batch=options.max_batch,
        engines={s.name: f"{s.name}.onnx" for s in candidate.placement.segments},
        precision=source.precision,
        threads=candidate.threads,
        made={
            "built": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "machine": describe_machine(),
            "parnet_deploy": __version__,
            "tolerance": source.tolerance,
        },
    )


def _references(deployment: Deployment, source: Source) -> list[tuple[Reference, Arrays]]:
    """What to prove engines on: the stored reference; for a range of sizes, others by the parts."""
    size, spec = deployment.input_size, deployment.spec
    reference = read_reference(deployment, source.reference)
    found = [(reference, part_values(deployment, reference.image, source))]
    for height, width in size.corners[1:] if size else ():
        values = part_values(deployment, random_image(spec, height, width), source)
        found.append((Reference(image=values[IMAGE], logits=values[LOGITS]), values))
    return found


def _prove(
    spec: ModelSpec,
    plan: Plan,
    folder: Path,
    references: list[tuple[Reference, Arrays]],
    tolerance: float,
) -> list[dict[str, Any]]:
    files = engine_files(plan, folder)
    checks = []
    for _, values in references:
        checks += verify_engines(spec, plan, files, values, tolerance=tolerance)
    with Runtime.from_plan(spec, plan, files) as runtime:
        for reference, _ in references:
            image, logits = reference.image, reference.logits
            batch = plan.max_batch
            checks += verify_whole(runtime, image, logits, max_batch=batch, tolerance=tolerance)
    return [check.require().to_json() for check in checks]


def _step_key(deployment: Deployment, options: BuildOptions) -> str:
    graphs = [f"onnx/{part.name}.onnx" for part in deployment.spec.parts]
    missing = [name for name in (*graphs, REFERENCE) if name not in deployment.artifacts]
    if missing:
        raise DeploymentError(
            f"deployment {deployment.path}: got no {missing[0]}, expected exported parts. "
            "Run: parnet-deploy export."
        )
    used = [name for source in _sources(deployment, options) for name in source.files(deployment)]
    return step_key(
        version=BUILD_VERSION,
        plan_schema=PLAN_SCHEMA,
        graphs={name: deployment.artifacts[name]["sha256"] for name in (*used, REFERENCE)},
        options=asdict(options),
        machine=machine_key(),
        packages=package_versions(),
    )


def _summary(plan: Plan) -> Mapping[str, Any]:
    return {
        "backend": plan.backend,
        "placement": plan.placement.name,
        "threads": plan.threads,
        "precision": plan.precision,
        "devices": list(plan.placement.devices),
        "median_ms": plan.median_ms,
        "built": plan.made["built"],
    }
