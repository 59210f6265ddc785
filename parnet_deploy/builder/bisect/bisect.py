"""Bisect a plan: the first engine, part and layer whose answer leaves the reference."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import onnx

from ...compare import Parity, compare
from ...deployment import Deployment
from ...errors import CheckFailedError
from ...placement import Segment
from ...plan import Plan
from ...runtime.choose import PlanFiles, read_plan
from ...runtime.session import Runtime
from ...spec import ModelSpec
from ...steps import Progress, read_reference
from ..onnx_merge import merge_segment
from ..precisions import Source, source_of
from ..verify import Arrays, part_values, run_graph, verify_engines, verify_whole
from .answers import TENSORRT, Answers, answers_of
from .graphs import Graph, differences
from .parts import JOINED, PARTS_ALONE, first_wrong_part, shows_tensors

ALL_SHOWN = "the engine with every tensor as an output"
GONE = "none: run again from its graph, the engine is right, so the fault is in how it was loaded"
ONE_BY_ONE = "graphs that end at one tensor each, for with all of them shown the fault is gone"


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A node of a graph. ``block`` is the block that it belongs to, ``output`` what it writes."""

    name: str
    op: str
    block: str
    output: str


@dataclass(frozen=True, kw_only=True)
class Bisection:
    """What was found in a plan; false if nothing leaves the reference.

    ``engines`` are the comparisons of each engine alone, ``whole`` those of the plan. ``engine``
    None with ``found``: every engine is right, and the whole is not. ``layer`` None: it is in no
    layer, or its backend shows none (see ``method``). ``differs`` says how the node differs from
    the graph that it was made from, if it does; if it does not, the kernel computes something else.
    """

    plan: str
    backend: str
    found: bool
    engines: Sequence[Parity]
    whole: Sequence[Parity]
    engine: str | None = None
    part: str | None = None
    layer: Layer | None = None
    error: float | None = None
    limit: float | None = None
    method: str | None = None
    differs: Sequence[str] = field(default=())

    def __bool__(self) -> bool:
        return self.found

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        checks = {
            name: [_finite(parity.to_json()) for parity in getattr(self, name)]
            for name in ("engines", "whole")
        }
        return _finite({**asdict(self), **checks, "differs": list(self.differs)})


def _finite(data: dict[str, Any]) -> dict[str, Any]:
    """JSON has no NaN: an error that is no number is None."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in data.items()
    }


def bisect_plan(
    deployment: Deployment, key: str, *, on_stage: Progress = lambda text: None
) -> Bisection:
    """Find where a plan leaves its reference. Changes nothing.

    Each engine gets the reference's own inputs, so that an error is found where it is made and not
    where it arrives. Within the first engine that is wrong, tensors are compared by name with those
    of the graphs that the plan was made from, computed without optimisations.

    Args:
        deployment: Exported, and built.
        key: The plan.
        on_stage: Called with what is being done, for progress.

    Raises:
        DeploymentError: There is no such plan, or a file was changed.
        BackendError: The plan does not run on this machine.
    """
    on_stage(f"{key}: each engine alone")
    spec, files = deployment.spec, read_plan(deployment, key)
    source = source_of(files.plan.backend, files.plan.precision)
    reference = read_reference(deployment, source.reference)
    values, limit = part_values(deployment, reference.image, source), source.tolerance
    engines = verify_engines(spec, files.plan, files.engines, values, tolerance=limit)
    wrong = _first_wrong(files.plan.placement.segments, engines)
    about: dict[str, Any] = {"plan": key, "backend": files.plan.backend, "engines": engines}
    if wrong is None:
        on_stage(f"{key}: the whole")
        try:
            with Runtime.open(deployment.path, plan=key) as runtime:
                whole = verify_whole(
                    runtime, reference.image, reference.logits, max_batch=1, tolerance=limit
                )
        except CheckFailedError as error:  # the canary
            return Bisection(**about, found=True, whole=[], limit=limit, differs=[str(error)])
        worst = max(whole, key=lambda check: (not check.finite, check.error))
        return Bisection(
            **about, found=not all(whole), whole=whole, error=worst.error, limit=worst.tolerance
        )
    if not shows_tensors(files.plan.homes[wrong.name]):
        on_stage(f"{key}: part by part in engine {wrong.name}")
        return _by_parts(about, deployment, files.plan, wrong, source, values)
    on_stage(f"{key}: layer by layer in engine {wrong.name}")
    search = _Search(deployment, files, wrong, source, values)
    return search.run(about)


def _first_wrong(segments: Sequence[Segment], checks: Sequence[Parity]) -> Segment | None:
    bad = [check.what for check in checks if not check]
    for segment in segments:
        if any(what.startswith(f"engine {segment.name},") for what in bad):
            return segment
    return None


def _by_parts(
    about: dict[str, Any],
    deployment: Deployment,
    plan: Plan,
    segment: Segment,
    source: Source,
    values: Arrays,
) -> Bisection:
    """In an engine that shows no tensors inside."""
    found = first_wrong_part(deployment, plan, segment, source, values)
    part, parity = found or (None, None)
    return Bisection(
        **about,
        found=True,
        whole=[],
        engine=segment.name,
        part=part,
        error=None if parity is None else parity.error,
        limit=source.tolerance,
        method=JOINED if found is None else PARTS_ALONE,
    )


class _Search:
    """The search in one engine."""

    def __init__(
        self,
        deployment: Deployment,
        files: PlanFiles,
        segment: Segment,
        source: Source,
        values: Arrays,
    ) -> None:
        self._spec, self._segment, self._limit = deployment.spec, segment, source.tolerance
        self._feeds = {name: values[name] for name in segment.inputs}
        self._expected = Graph(_merged(deployment, segment, source))
        self._got = _engine_graph(files, segment, self._expected)
        self._run: Answers = answers_of(files.plan, segment.device)
        shown = [name for name in self._expected.writers if name in self._got.writers]
        reference = run_graph(self._expected.showing(shown), self._feeds, emulate=True)
        self._reference = {k: a for k, a in reference.items() if a.dtype.kind == "f"}
        self._order = [name for name in shown if name in self._reference]

    def run(self, about: dict[str, Any]) -> Bisection:
        found = self._run(self._got.showing(self._order), self._feeds)
        errors = {name: self._compare(name, found) for name in self._order}
        method = ALL_SHOWN
        if all(errors[name] for name in self._segment.outputs):  # shown, it is right
            narrowed = self._narrow()
            if narrowed is None:
                name = self._segment.name
                return Bisection(
                    **about, found=True, whole=[], engine=name, limit=self._limit, method=GONE
                )
            method, (culprit, parity) = ONE_BY_ONE, narrowed
        else:
            culprit = next(name for name in self._order if self._begins(name, errors))
            parity = errors[culprit]
        layer = _layer(self._got.writers[culprit])
        return Bisection(
            **about,
            found=True,
            whole=[],
            engine=self._segment.name,
            part=_part_of(self._spec, layer, self._segment),
            layer=layer,
            error=parity.error,
            limit=parity.tolerance,
            method=method,
            differs=list(differences(self._got, self._expected, culprit)),
        )

    def _begins(self, name: str, errors: dict[str, Parity]) -> bool:
        """Whether it is wrong, and nothing that it is computed from is."""
        before = self._got.behind(name) - {name}
        return not errors[name] and all(errors[n] for n in before if n in errors)

    def _narrow(self) -> tuple[str, Parity] | None:
        """Halve what is behind a wrong tensor: what is right has only right ones behind it."""
        checks: dict[str, Parity] = {}

        def check(name: str) -> Parity:
            if name not in checks:
                checks[name] = self._compare(
                    name, self._run(self._got.ending_at(name), self._feeds)
                )
            return checks[name]

        wrong = next((name for name in self._segment.outputs if not check(name)), None)
        if wrong is None:
            return None
        suspects = self._behind(wrong)
        while suspects:
            middle = suspects[len(suspects) // 2]
            if check(middle):
                right = self._got.behind(middle)
                suspects = [name for name in suspects if name not in right]
            else:
                wrong = middle
                suspects = [name for name in suspects if name in self._behind(middle)]
        return wrong, check(wrong)

    def _behind(self, tensor: str) -> list[str]:
        behind = self._got.behind(tensor) - {tensor}
        return [name for name in self._order if name in behind]

    def _compare(self, name: str, found: Arrays) -> Parity:
        return compare(found[name], self._reference[name], tolerance=self._limit, what=name)


def _engine_graph(files: PlanFiles, segment: Segment, expected: Graph) -> Graph:
    """What the engine computes: a TensorRT engine the very graph that it was made from."""
    if files.plan.backend == TENSORRT:
        return expected
    return Graph(onnx.load_from_string(files.engines[segment.name].read_bytes()))


def _merged(deployment: Deployment, segment: Segment, source: Source) -> onnx.ModelProto:
    """What the engine was made from."""
    parts = {
        name: onnx.load_from_string(deployment.read_bytes(f"{source.folder}/{name}.onnx"))
        for name in segment.parts
    }
    return merge_segment(segment, deployment.spec, parts)


def _layer(node: onnx.NodeProto) -> Layer:
    block = node.name.partition("/")[0]
    return Layer(name=node.name, op=node.op_type, block=block, output=node.output[0])


def _part_of(spec: ModelSpec, layer: Layer, segment: Segment) -> str:
    """The part that has the block; what follows the last block of all is the head's."""
    for part in spec.parts:
        if layer.block in (part.name, *(block.name for block in part.blocks)):
            return part.name
    return segment.parts[-1]
