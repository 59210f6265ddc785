"""Where the time of one call goes, for the plan that is really run."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...deployment import Deployment
from ...machine.cores import share_cores
from ...measure import time_ms
from ...placement import Segment
from ...plan import Plan
from ...runtime.choose import PlanFiles, read_plan
from ...runtime.session import Runtime
from ...signing.trust import open_trusted
from ...spec import IMAGE, LOGITS, ModelSpec
from ..result import PartTime, Split, SplitRow
from ..timeline import Call, read_timeline
from .preparation import preprocess_row

if TYPE_CHECKING:
    from .profile import Profile

CPU = "onnxruntime"  # whose profiler looks into engines
WARM_UP, CALLS = 2, 15
GRAPHS = {"fp32": "onnx", "fp16": "onnx-fp16", "int8": "onnx-int8-cpu"}  # of plans for the CPU
STAGES = {"stem": "stems", "stream": "streams", "fusion": "fusion", "head": "head"}
_ORDER = ("copy in", "stems", "streams", "wait", "fusion", "head", "copy out")

_COPIES = {f"{IMAGE} in": "copy in", f"{LOGITS} out": "copy out"}  # others: a lane waits for them

PartTimes = Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What was measured of a plan.

    ``engines`` has the parts of each engine by the profiler; it is empty where none looks into
    engines. ``call`` is a traced call, None where one engine does all. ``whole_ms`` is the call
    that was profiled or traced, ``plain_ms`` one that was neither.
    """

    whole_ms: float
    plain_ms: float
    engines: Mapping[str, PartTimes]
    call: Call | None


def measure_split(
    directory: Path,
    key: str,
    image: NDArray[np.float32],
    *,
    threads: int | None = None,
    on_stage: Callable[[str], None] = lambda text: None,
) -> Split:
    """Measure where the time of a call goes.

    One engine on the CPU runs under ONNX Runtime's profiler: its kernels' times as they are, and
    "other" for what is left. Several engines, or other devices: the stages are those of the
    critical path of a traced call, and an engine of several parts is divided as its profile is,
    alone, where there is a profiler. ``parts`` are the profiler's, each engine alone; it marks the
    longest path through the network, which is what a call would take with a lane for every stream.

    Args:
        directory: The deployment.
        key: The plan.
        image: (N, C, H, W).
        threads: Cores on the CPU; None: as the plan says.
        on_stage: Called with what is being done, for progress.

    Raises:
        BackendError: The plan does not run here.
    """
    on_stage("where the time goes")
    deployment = open_trusted(directory)
    files = read_plan(deployment, key)
    with Runtime.open(directory, plan=key, threads=threads) as runtime:
        if files.plan.backend == CPU and len(files.plan.placement.segments) == 1:
            measured = _profiled(files, deployment.spec, image, runtime)
        else:
            with Runtime.open(directory, plan=key, threads=threads, trace=True) as traced:
                measured = _traced(files, deployment.spec, image, runtime, traced)
    before = preprocess_row(deployment)
    return Split(
        source=_source(files.plan, measured),
        whole_ms=measured.whole_ms,
        plain_ms=measured.plain_ms,
        rows=[*([before] if before else []), *split_rows(measured, files.plan)],
        parts=_parts(deployment, files.plan.precision, measured.engines, image),
    )


def split_rows(measured: Measured, plan: Plan) -> list[SplitRow]:
    """The stages of a call; together with "other" they are ``whole_ms``."""
    times = dict.fromkeys(_ORDER, 0.0)
    unknown = closed = 0.0  # of no part; in engines that nothing looks into
    segments = {segment.name: segment for segment in plan.placement.segments}
    if measured.call is None:
        for parts in measured.engines.values():
            unknown += parts.get("", 0.0)
            for part, spent_ms in parts.items():
                if part:
                    times[stage_of(part)] += spent_ms
    else:
        times["wait"] = measured.call.critical_split()["launching_us"] / 1e3
        for span in measured.call.critical:
            spent_ms = span.duration_us / 1e3
            if span.kind != "engine":
                times[_COPIES.get(span.name, "wait")] += spent_ms
                continue
            shares = shares_of(segments[span.name], measured.engines.get(span.name, {}))
            if not shares:
                closed += spent_ms
                continue
            unknown += spent_ms * (1 - sum(shares.values()))
            for part, share in shares.items():
                times[stage_of(part)] += spent_ms * share
    rows = [_row(stage, times[stage], _how(stage, times[stage], measured)) for stage in _ORDER]
    if closed:
        rows.append(
            _row("engine", closed, "engines of several stages; no profiler looks into them")
        )
    rest = measured.whole_ms - sum(times.values()) - closed
    named = f", {unknown:.3g} ms of it in engines, where no part has it" if unknown > 1e-6 else ""
    return [*rows, _row("other", rest, f"between kernels and engines{named}")]


def shares_of(segment: Segment, profiled: PartTimes) -> dict[str, float]:
    """How an engine's time is divided among its parts: by its profile, or not if there is none."""
    if len(segment.parts) == 1:
        return {segment.parts[0]: 1.0}
    total = sum(profiled.values())
    if total <= 0:
        stages = {stage_of(part) for part in segment.parts}
        return {segment.parts[0]: 1.0} if len(stages) == 1 else {}
    return {part: spent / total for part, spent in profiled.items() if part}


def stage_of(part: str) -> str:
    """``stream1`` -> streams."""
    return STAGES[re.sub(r"\d+$", "", part)]


def longest_path(spec: ModelSpec, times_ms: PartTimes) -> set[str]:
    """The parts whose times add up to the longest way from the image to the logits."""
    ends: dict[str, tuple[float, str | None]] = {}
    writer = {part.output: part.name for part in spec.parts}
    for part in spec.parts:
        before = [writer[name] for name in part.inputs if name in writer]
        last = max(before, key=lambda name: ends[name][0], default=None)
        start = 0.0 if last is None else ends[last][0]
        ends[part.name] = (start + times_ms.get(part.name, 0.0), last)
    path: set[str] = set()
    here: str | None = spec.parts[-1].name
    while here is not None:
        path.add(here)
        here = ends[here][1]
    return path


def _profiled(
    files: PlanFiles, spec: ModelSpec, image: NDArray[np.float32], runtime: Runtime
) -> Measured:
    """The one engine under the profiler, in turns with calls that are not."""
    plain_ms: list[float] = []

    def plain_call() -> None:
        plain_ms.append(time_ms(lambda: runtime(image)))

    found = _profile(files, spec, image, runtime, plain_call)
    ((name, profile),) = found.items()
    return Measured(
        whole_ms=profile.whole_ms,
        plain_ms=median(plain_ms[WARM_UP:]),
        engines={name: profile.parts},
        call=None,
    )


def _traced(
    files: PlanFiles,
    spec: ModelSpec,
    image: NDArray[np.float32],
    runtime: Runtime,
    traced: Runtime,
) -> Measured:
    """Traced calls, in turns with calls that are not; then each engine alone, if that can be."""
    plain_ms = []
    for _ in range(WARM_UP + CALLS):
        plain_ms.append(time_ms(lambda: runtime(image)))
        traced(image)
    call = read_timeline(traced.timeline(), traced.program, calls=CALLS).typical
    profiles = _profile(files, spec, image, runtime) if files.plan.backend == CPU else {}
    return Measured(
        whole_ms=call.wall_us / 1e3,
        plain_ms=median(plain_ms[WARM_UP:]),
        engines={name: profile.parts for name, profile in profiles.items()},
        call=call,
    )


def _profile(
    files: PlanFiles,
    spec: ModelSpec,
    image: NDArray[np.float32],
    runtime: Runtime,
    between: Callable[[], object] = lambda: None,
) -> dict[str, Profile]:
    """Each engine by itself, on what those before it computed."""
    from .profile import profile_engine

    threads = share_cores(files.plan.placement, runtime.describe()["facts"]["cores"])
    values: dict[str, NDArray[np.float32]] = {IMAGE: image}
    found = {}
    for segment in files.plan.placement.segments:
        found[segment.name], outputs = profile_engine(
            files.engines[segment.name],
            {name: values[name] for name in segment.inputs},
            spec,
            threads=threads[segment.name],
            between=between,
        )
        values |= outputs
    return found


def _parts(
    deployment: Deployment,
    precision: str,
    engines: Mapping[str, PartTimes],
    image: NDArray[np.float32],
) -> list[PartTime]:
    """Every part that the profiler saw; nothing where it saw none."""
    spec, (batch, _, height, width) = deployment.spec, image.shape
    times: dict[str, float] = {}
    for parts in engines.values():
        for name, spent_ms in parts.items():
            if name and name not in times:  # a stem that is computed twice counts once
                times[name] = spent_ms
    if not times:
        return []
    critical, macs = longest_path(spec, times), spec.macs(height, width)
    rows = []
    for part in spec.parts:
        spent_ms = times.get(part.name, 0.0)
        moved = _bytes_moved(deployment, GRAPHS[precision], part.name, image)
        flops = 2 * macs[part.name] * batch
        rows.append(
            PartTime(
                part=part.name,
                ms=spent_ms,
                macs=macs[part.name],
                bytes=moved,
                gflops=flops / spent_ms / 1e6 if spent_ms else 0.0,
                share_of_peak=None,
                critical=part.name in critical,
            )
        )
    return rows


def _bytes_moved(deployment: Deployment, folder: str, name: str, image: NDArray[np.float32]) -> int:
    """Weights once, as they are stored, and what is read and written in float32, for the batch."""
    spec, (batch, channels, height, width) = deployment.spec, image.shape
    part = next(part for part in spec.parts if part.name == name)
    shapes = [
        (channels, height, width) if tensor == IMAGE else spec.tensors[tensor].shape(height, width)
        for tensor in (*part.inputs, part.output)
    ]
    weights = deployment.artifacts[f"{folder}/{name}.onnx"]["bytes"]
    return int(weights + 4 * batch * sum(int(np.prod(shape)) for shape in shapes))


def _row(stage: Any, spent_ms: float, how: str) -> SplitRow:
    return SplitRow(stage=stage, ms=spent_ms, how=how)


def _how(stage: str, spent_ms: float, measured: Measured) -> str:
    if stage in ("copy in", "copy out") and not spent_ms:
        return "none: read and written in place"
    if stage == "wait":
        alone = measured.call is None
        return "none: one engine" if alone else "other lanes, launches, copies between devices"
    return "profiled" if measured.call is None else "on the critical path"


def _source(plan: Plan, measured: Measured) -> str:
    longer = measured.whole_ms / measured.plain_ms - 1
    cost = f"looking into a call changed its time by {longer:+.0%}"
    if measured.call is None:
        return (
            f"ONNX Runtime's profiler; {cost}; parts run in turn, the critical path is that of a "
            "lane for every stream"
        )
    inside = "profiled alone" if measured.engines else "no profiler looks into engines"
    return (
        f"traced call of the placement {plan.placement.name}, its critical path; {cost}; parts: "
        f"{inside}"
    )
