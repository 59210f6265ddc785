"""Build candidates: merge their graphs, make their engines, prove each against the reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import onnx

from .. import __version__
from ..deployment import Deployment
from ..errors import BackendError, CheckFailedError, DeploymentError
from ..input_size import InputSize
from ..machine.describe import describe_machine
from ..plan import Plan
from ..reference import Reference, random_image
from ..spec import IMAGE, LOGITS, ModelSpec
from ..steps import Progress, read_reference
from .candidates import Candidate
from .engines import EngineOrder, engine_file, make_engines
from .onnx_merge import merge_segment
from .options import BuildOptions
from .planner import Built, LeftOut
from .precisions import Source
from .prove import Proof, prove_in_child, prove_plan
from .verify import part_values

CHILD_BACKENDS = ("openvino", "mnn", "ncnn", "mixed")
"""Backends whose engines were converted: a library's mistake in one must not end the build."""


@dataclass(frozen=True, kw_only=True)
class Material:
    """The part graphs of one precision, and what its engines are held against."""

    source: Source
    graphs: Mapping[str, onnx.ModelProto]
    proofs: Sequence[Proof]


@dataclass(kw_only=True)
class Workshop:
    """What all candidates of one build share: material, a folder, finished engines."""

    spec: ModelSpec
    input_size: InputSize
    options: BuildOptions
    materials: Mapping[str, Material]
    folder: Path
    on_stage: Progress
    finished: dict[tuple[object, ...], tuple[Path, dict[str, Any]]] = field(default_factory=dict)

    def build_all(self, candidates: Sequence[Candidate]) -> tuple[list[Built], list[LeftOut]]:
        """Build what can be built.

        Raises:
            BackendError: None can be built; the reason is that of the simplest.
            CheckFailedError: The same for a proof.
        """
        built, left_out = self.try_all(candidates)
        if not built:
            raise left_out[0].error
        return built, left_out

    def try_all(self, candidates: Sequence[Candidate]) -> tuple[list[Built], list[LeftOut]]:
        """Build what can be built, which may be nothing."""
        built: list[Built] = []
        left_out: list[LeftOut] = []
        for candidate in candidates:
            try:
                built.append(self.build(candidate))
            except (BackendError, CheckFailedError) as error:
                left_out.append(LeftOut(candidate=candidate, error=error))
        return built, left_out

    def build(self, candidate: Candidate) -> Built:
        """Make the engines of one candidate and prove them."""
        self.on_stage(f"building {candidate.label}")
        folder, records = self._engines(candidate)
        plan = self._plan(candidate, records)
        self.on_stage(f"proving {candidate.label}")
        checks = self._prove(plan, folder, self._material(candidate))
        plan = replace(plan, made={**plan.made, "checks": checks})
        return Built(candidate=candidate, plan=plan, folder=folder)

    def _engines(self, candidate: Candidate) -> tuple[Path, dict[str, Any]]:
        """Engine files and their records; candidates may differ in threads only and share them."""
        homes = self._homes(candidate)
        key = (
            candidate.placement,
            candidate.aux_streams,
            candidate.precision,
            tuple(homes.items()),
        )
        if key not in self.finished:
            folder = self.folder / str(len(self.finished))
            folder.mkdir(exist_ok=True)
            orders: dict[str, list[EngineOrder]] = {}
            for segment in candidate.placement.segments:
                graphs = self._material(candidate).graphs
                merged = merge_segment(segment, self.spec, graphs)
                order = EngineOrder(
                    graph=merged.SerializeToString(deterministic=True),
                    segment=segment,
                    spec=self.spec,
                    input_size=self.input_size,
                    max_batch=self.options.max_batch,
                    options=self.options.tensorrt(candidate.aux_streams),
                    folder=folder,
                    precision=candidate.precision,
                    on_stage=self.on_stage,
                )
                orders.setdefault(homes[segment.name], []).append(order)
            records: dict[str, Any] = {}
            for backend, some in orders.items():
                records |= make_engines(backend, some)
            self.finished[key] = (folder, records)
        return self.finished[key]

    def _backend(self, candidate: Candidate) -> str:
        found = candidate.backend or self.options.backend
        assert found is not None  # ``choose_backend`` has filled it in
        return found

    def _material(self, candidate: Candidate) -> Material:
        return self.materials[candidate.precision]

    def _homes(self, candidate: Candidate) -> dict[str, str]:
        """The backend of each segment."""
        backend = self._backend(candidate)
        same = {segment.name: backend for segment in candidate.placement.segments}
        return dict(candidate.backends) or same

    def _plan(self, candidate: Candidate, records: Mapping[str, Any]) -> Plan:
        segments, homes = candidate.placement.segments, self._homes(candidate)
        return Plan(
            backend=self._backend(candidate),
            backends=dict(candidate.backends),
            placement=candidate.placement,
            input_size=self.input_size,
            max_batch=self.options.max_batch,
            engines={s.name: engine_file(homes[s.name], s) for s in segments},
            precision=candidate.precision,
            threads=candidate.threads,
            made={
                "built": datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
                "machine": describe_machine(),
                "parnet_deploy": __version__,
                "tolerance": self._material(candidate).source.tolerance,
                "aux_streams": candidate.aux_streams,
                "engines": dict(records),
            },
        )

    def _prove(self, plan: Plan, folder: Path, material: Material) -> list[dict[str, Any]]:
        """What was compared. Engines that may end a process are opened in one of their own."""
        limit = material.source.tolerance
        if plan.backend in CHILD_BACKENDS:
            checks = prove_in_child(self.spec, plan, folder, material.proofs, tolerance=limit)
        else:
            checks = prove_plan(self.spec, plan, folder, material.proofs, tolerance=limit)
        return [check.require().to_json() for check in checks]


def open_workshop(
    deployment: Deployment,
    options: BuildOptions,
    sources: Sequence[Source],
    folder: Path,
    on_stage: Progress,
) -> Workshop:
    """Read the graphs of each precision and compute what engines are held against.

    Raises:
        DeploymentError: The deployment is not exported, or a graph was changed.
    """
    return Workshop(
        spec=deployment.spec,
        input_size=exported_size(deployment),
        options=options,
        materials={source.precision: _material(deployment, source) for source in sources},
        folder=folder,
        on_stage=on_stage,
    )


def _material(deployment: Deployment, source: Source) -> Material:
    graphs = {
        part.name: onnx.load_from_string(deployment.read_bytes(f"{source.folder}/{part.name}.onnx"))
        for part in deployment.spec.parts
    }
    return Material(source=source, graphs=graphs, proofs=_references(deployment, source))


def exported_size(deployment: Deployment) -> InputSize:
    """The sizes that the graphs accept.

    Raises:
        DeploymentError: The deployment is not exported.
    """
    if deployment.input_size is None:
        raise DeploymentError(
            f"deployment {deployment.path}: it is not exported. Run: parnet-deploy export."
        )
    return deployment.input_size


def _references(deployment: Deployment, source: Source) -> list[Proof]:
    """What to prove engines on: the stored reference; for a range of sizes, others by the parts."""
    size, spec = deployment.input_size, deployment.spec
    reference = read_reference(deployment, source.reference)
    values = part_values(deployment, reference.image, source)
    found = [Proof(reference=reference, values=values)]
    for height, width in size.corners[1:] if size else ():
        values = part_values(deployment, random_image(spec, height, width), source)
        whole = Reference(image=values[IMAGE], logits=values[LOGITS])
        found.append(Proof(reference=whole, values=values))
    return found
