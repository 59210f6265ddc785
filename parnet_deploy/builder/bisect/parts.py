"""The search in an engine that shows no tensors inside: its parts, each converted by itself.

OpenVINO, MNN and ncnn fuse and rename what they convert; no tensor between two layers can be asked
for by the name that it has in the graph. Those between parts have engines of their own here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from ...compare import Parity
from ...deployment import Deployment
from ...placement import Segment, chain
from ...plan import Plan
from ...storage.scratch import scratch_folder
from ..convert.convert import CONVERTERS, convert_graph
from ..precisions import Source
from ..verify import Arrays, verify_engines

PARTS_ALONE = "each part of the engine converted by itself"
JOINED = (
    "each part of the engine converted by itself, and all are right: the fault is in the file of "
    "the engine, or in how the converter joins parts"
)

Convert = Callable[..., object]


def shows_tensors(backend: str) -> bool:
    """Whether an engine of this backend can be asked for tensors between its layers."""
    return backend not in CONVERTERS


def first_wrong_part(
    deployment: Deployment,
    plan: Plan,
    segment: Segment,
    source: Source,
    values: Arrays,
    *,
    convert: Convert = convert_graph,
) -> tuple[str, Parity] | None:
    """Convert each part of an engine by itself and hold it against the reference.

    Args:
        deployment: Has the graphs.
        plan: The plan of the engine.
        segment: The engine's, on a backend that shows no tensors.
        source: The graphs that the plan was built from.
        values: What is right, by tensor.
        convert: See ``convert_graph``.

    Returns: The first part that is wrong, and its comparison; None: each is right alone.

    Raises:
        EngineBuildError: A part cannot be converted.
    """
    backend, spec = plan.homes[segment.name], deployment.spec
    placement = chain(spec, [[name] for name in segment.parts])
    with scratch_folder("parnet-bisect-") as folder:
        files = {name: folder / name for name in segment.parts}
        make = partial(convert, backend=backend, precision=plan.precision)
        for name, file in files.items():
            graph = deployment.read_bytes(f"{source.folder}/{name}.onnx")
            make(graph, file, name=name)
        engines = {name: file.name for name, file in files.items()}
        alone = replace(plan, backend=backend, backends={}, placement=placement, engines=engines)
        checks = verify_engines(spec, alone, files, values, tolerance=source.tolerance)
    bad = (check for check in checks if not check)
    return next(((_part(check), check) for check in bad), None)


def _part(check: Parity) -> str:
    """``engine stem0, stem0`` -> stem0."""
    return check.what.removeprefix("engine ").partition(",")[0]
