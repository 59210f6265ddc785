"""The step ``bench:timeline``: trace some calls of a plan and keep the trace and a picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..deployment import Deployment, step_key
from ..runtime.session import Runtime
from ..signing.trust import open_trusted
from ..steps import Progress, StepResult, read_reference, write_report
from .bench_step import BenchOptions
from .timeline import read_timeline, trace_events
from .timeline_svg import draw_timeline

TRACE = "reports/timeline.json"
PICTURE = "reports/timeline.svg"
CALLS = 20
WARM_UP = 5
TRACED = "Traced one operation at a time, without graphs: gaps are longer than in a timed call."


def trace_to_deployment(
    directory: Path,
    options: BenchOptions | None = None,
    *,
    on_stage: Progress = lambda text: None,
) -> StepResult:
    """Trace the chosen plan and publish ``reports/timeline.json`` and ``reports/timeline.svg``.

    The JSON opens in Perfetto and Chrome's tracing; ``otherData`` has the summary.

    Args:
        directory: The deployment, built.
        options: Which plan, backend and batch.
        on_stage: Called with what is being done, for progress.

    Returns: A result whose report is ``Timeline.to_json`` and the plan.

    Raises:
        BackendError: No plan runs on this machine, or its devices recorded nothing.
    """
    options = options or BenchOptions()
    deployment = open_trusted(directory)
    image = np.concatenate([read_reference(deployment).image] * options.batch)
    on_stage("tracing")
    with Runtime.open(directory, plan=options.plan, backend=options.backend, trace=True) as runtime:
        for _ in range(WARM_UP + CALLS):
            runtime(image)
        about = runtime.describe()
        timeline = read_timeline(runtime.timeline(), runtime.program, calls=CALLS)
    placement = about["placement"]["name"]
    title = f"{deployment.name}: {about['backend']}, placement {placement}, batch {options.batch}"
    report = {"plan": about["plan"], "backend": about["backend"], **timeline.to_json()}
    with Deployment.edit(directory) as txn:
        events = {"traceEvents": list(trace_events(timeline)), "displayTimeUnit": "ms"}
        write_report(txn.stage(TRACE), {**events, "otherData": report})
        picture = draw_timeline(timeline, title, TRACED)
        txn.stage(PICTURE).write_text(picture, encoding="utf-8")
        made_from = {f"build:{about['plan']}"}
        key = step_key(digest=deployment.digest)
        txn.finish_step("bench:timeline", key=key, made_from=made_from)
    return StepResult(path=directory, skipped=False, report=report)
