"""The fused network on OpenVINO, as an arm."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from ...contest.arm import Array, OpenedArm
from ...deployment import Deployment
from ...errors import BackendError
from ...extras import import_for
from ...runtime.choose import read_plan
from .elsewhere import make_elsewhere
from .session import check_cpu

_ov = import_for("parnet_deploy.runtime.openvino.library", "openvino").ov

_FUSED = "parnet_deploy.bench.arms.fused:fused_graph"


def open_openvino(
    *,
    directory: str,
    plan: str,
    batch: int,
    size: Sequence[int],
    threads: int,
    **others: Any,
) -> OpenedArm:
    """Our fused graphs as one, compiled for the CPU: latency hint, float32, shapes fixed.

    OpenVINO takes bfloat16 by itself where the CPU has it; asked for float32 it must say that it
    computes in float32.

    Raises:
        BackendError: It computes in another precision.
        DeviceUnavailableError: The plan runs on a GPU.
    """
    deployment = Deployment.open(directory)
    check_cpu(read_plan(deployment, plan).plan, "OpenVINO")
    spec = deployment.spec
    data = make_elsewhere(_FUSED, directory=directory)
    started = time.perf_counter_ns()
    core = _ov.Core()
    network = core.read_model(data)
    network.reshape([batch, spec.in_channels, *size])
    config = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": threads,
    }
    compiled = core.compile_model(network, "CPU", config)
    load_ms = (time.perf_counter_ns() - started) / 1e6
    precision = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
    if precision != "f32":
        raise BackendError(f"OpenVINO: got inference precision {precision}, expected f32")
    request = compiled.create_infer_request()

    def run(images: Array) -> Array:
        logits: Array = request.infer({0: images}, share_inputs=True)[0]
        return logits

    threads_used = compiled.get_property("INFERENCE_NUM_THREADS")
    version = _ov.__version__.partition("-")[0]
    return OpenedArm(
        run=run,
        note=f"fused graph, latency hint, f32, {threads_used} threads, OpenVINO {version}",
        load_ms=load_ms,
        model_bytes=len(data),
        parameters=deployment.source.get("parameters"),
        macs=sum(spec.macs(*size).values()),
        facts={"openvino": _ov.__version__, "threads": threads_used},
    )
