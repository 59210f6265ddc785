"""One ONNX graph in one ONNX Runtime session, on the plan's device: what several arms share."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...contest.arm import Array
from ...errors import DeviceUnavailableError
from ...plan import Plan
from ...runtime.backend import on_host
from ...storage.scratch import scratch_folder

_CUDA = "onnxruntime-cuda"


def on_cpu(plan: Plan) -> bool:
    """Whether the plan runs on the CPU; simulated devices do."""
    return on_host(plan.backend)


def check_cpu(plan: Plan, what: str) -> None:
    """Refuse to run on the CPU beside a plan that runs on a GPU.

    Raises:
        DeviceUnavailableError: It does; the figures would compare devices.
    """
    if not on_cpu(plan):
        raise DeviceUnavailableError(
            f"{what} runs on the CPU here and the plan on {plan.backend}: the figures would "
            "compare devices"
        )


def open_beside(model: bytes, plan: Plan, *, threads: int) -> tuple[Any, float]:
    """An ``InferenceSession`` on the plan's device, with the options of the plan's backend.

    It is opened from a file, which is gone afterwards: one that is opened from memory keeps the
    bytes, and the arm would seem to need more memory than it does.

    Returns: The session, and milliseconds of opening it.

    Raises:
        DeviceUnavailableError: The plan's backend is not ONNX Runtime, or has no such device here.
        EngineLoadError: ONNX Runtime cannot load the graph.
    """
    with scratch_folder("parnet-arm-") as scratch:
        file = scratch / "model.onnx"
        file.write_bytes(model)
        started = time.perf_counter_ns()
        session = _open(file, plan, threads)
        return session, (time.perf_counter_ns() - started) / 1e6


def caller(session: Any) -> Callable[[Array], Array]:
    """Images in, logits out, by the names that the graph has."""
    (image,), (logits,) = session.get_inputs(), session.get_outputs()
    inputs, outputs = image.name, [logits.name]

    def run(images: Array) -> Array:
        answer: Array = session.run(outputs, {inputs: images})[0]
        return answer

    return run


def place_text(plan: Plan, threads: int) -> str:
    """Where such a session runs, for people."""
    if on_cpu(plan):
        return f"ONNX Runtime, all optimisations, {threads} threads, spinning off"
    return "ONNX Runtime on CUDA, all optimisations, TF32 off"


def _open(model: Path, plan: Plan, threads: int) -> Any:
    if on_cpu(plan):
        from ...runtime.onnxruntime.cpu import open_session

        return open_session(model, threads=threads)
    if plan.backend != _CUDA:
        raise DeviceUnavailableError(
            f"the plan runs on {plan.backend}, and this arm only on ONNX Runtime. Build a plan of "
            f"it: parnet-deploy build --backend {_CUDA}"
        )
    from ...runtime.onnxruntime.cuda_session import OrtCudaOptions, check_provider
    from ...runtime.onnxruntime.cuda_session import open_session as open_cuda

    check_provider()
    options = OrtCudaOptions().for_session(plan.placement.devices[0], 0)
    for name in ("has_user_compute_stream", "user_compute_stream"):  # it makes a stream of its own
        del options[name]
    return open_cuda(model, options)
