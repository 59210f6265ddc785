"""What ONNX Runtime's own profiler says of an engine: the time of each part in it.

Nodes bear the name of their block, ``streams.1.0/conv``, or of their part, ``stem1/x0/quantize``,
and keep it through ONNX Runtime's optimisations; one in float16 that is computed in float32 gets a
word in front. Conversions of the memory layout have no block in their name: one in front of a
convolution goes with the next named node, one behind it with the last. What has no name and no such
neighbour is counted under "".
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...runtime.engine_file import EngineFile
from ...runtime.onnxruntime.cpu import open_session
from ...spec import ModelSpec
from ...storage.scratch import scratch_folder

Arrays = Mapping[str, NDArray[np.float32]]
WARM_UP, CALLS = 2, 7
_KERNEL = "_kernel_time"
_WIDENED = "InsertedPrecisionFreeCast_"  # float16 in the graph, computed in float32


class Profile(NamedTuple):
    """One call of an engine: milliseconds of each part ("" for what is of none) and in all."""

    parts: Mapping[str, float]
    whole_ms: float


def profile_engine(
    engine: EngineFile,
    feeds: Arrays,
    spec: ModelSpec,
    *,
    threads: int,
    between: Callable[[], object] = lambda: None,
) -> tuple[Profile, dict[str, NDArray[np.float32]]]:
    """Run an engine some times under the profiler, which makes it a little slower.

    Args:
        engine: An ONNX file.
        feeds: Its inputs by name.
        spec: The network, for which block is of which part.
        threads: Cores, as in the plan.
        between: Called before each profiled call.

    Returns: The call of median time, and the outputs.
    """
    with scratch_folder("parnet-profile-") as scratch:
        session = open_session(engine, threads=threads, profile=scratch / "calls")
        names = [output.name for output in session.get_outputs()]
        walls_ms = []
        for _ in range(WARM_UP + CALLS):
            between()
            started = time.perf_counter_ns()
            values = session.run(names, dict(feeds))
            walls_ms.append((time.perf_counter_ns() - started) / 1e6)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    calls = list(zip(walls_ms, _calls(events), strict=True))[WARM_UP:]
    wall_ms, kernels = sorted(calls, key=lambda call: call[0])[CALLS // 2]
    found = Profile(parts=parts_of_call(kernels, spec), whole_ms=wall_ms)
    return found, dict(zip(names, values, strict=True))


def parts_of_call(events: Iterable[Mapping[str, Any]], spec: ModelSpec) -> dict[str, float]:
    """Milliseconds of each part in one call, from its kernels in the order of their start."""
    owner = {block.name: part.name for part in spec.parts for block in part.blocks}
    owner |= {part.name: part.name for part in spec.parts}
    found: dict[str, float] = {}
    last, waiting_us = "", 0.0  # waiting: conversions in front of a node that is still to come
    for event in sorted(events, key=lambda event: int(event["ts"])):
        name = str(event["name"]).removesuffix(_KERNEL).removeprefix(_WIDENED)
        part, spent_us = owner.get(name.partition("/")[0]), float(event["dur"])
        if part is None and name.startswith("ReorderInput"):
            waiting_us += spent_us
            continue
        last = last if part is None and name.startswith("ReorderOutput") else part or ""
        found[last] = found.get(last, 0.0) + (spent_us + waiting_us) / 1e3
        waiting_us = 0.0
    if waiting_us:
        found[""] = found.get("", 0.0) + waiting_us / 1e3
    return found


def _calls(events: Iterable[Mapping[str, Any]]) -> Iterable[list[Mapping[str, Any]]]:
    """The kernels of each call: those inside one run of the session."""
    known = [event for event in events if event.get("ph") == "X"]
    kernels = [e for e in known if e.get("cat") == "Node" and str(e["name"]).endswith(_KERNEL)]
    for run in sorted((e for e in known if e["name"] == "model_run"), key=lambda e: int(e["ts"])):
        begin, end = int(run["ts"]), int(run["ts"]) + int(run["dur"])
        yield [event for event in kernels if begin <= int(event["ts"]) <= end]
