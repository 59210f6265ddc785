"""How a backend answers a graph: its kernels and optimisations, any tensor as output.

A TensorRT engine cannot be asked for a tensor inside it. Polygraphy builds another one from the
same graph with that tensor as an output, as its own debugging does: only where TensorRT is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ...errors import BackendError
from ...extras import import_for
from ...plan import Plan
from ..verify import Arrays, run_graph

Answers = Callable[[bytes, Arrays], Arrays]
CUDA, TENSORRT = "onnxruntime-cuda", "tensorrt"


def answers_of(plan: Plan, device: int) -> Answers:
    """The function that runs a graph as this plan's backend does.

    Raises:
        MissingExtraError: TensorRT engines need Polygraphy.
    """
    if plan.backend == TENSORRT:
        return _tensorrt(plan.precision)
    if plan.backend == CUDA:
        return _onnxruntime_cuda(device)
    return run_graph


def _onnxruntime_cuda(device: int) -> Answers:
    module = import_for("parnet_deploy.runtime.onnxruntime.cuda_session", "gpu")

    def run(model: bytes, feeds: Arrays) -> Arrays:
        session = module.open_session(model, module.OrtCudaOptions().for_session(device, 0))
        names = [output.name for output in session.get_outputs()]
        return dict(zip(names, session.run(names, dict(feeds)), strict=True))

    return run


def _tensorrt(precision: str) -> Answers:
    trt = import_for("polygraphy.backend.trt", "verify")

    def run(model: bytes, feeds: Arrays) -> Arrays:
        profile = trt.Profile()
        for name, array in feeds.items():
            profile.add(name, array.shape, array.shape, array.shape)
        options: dict[str, Any] = {"profiles": [profile], "tf32": False}
        if precision != "fp32" and not _typed():
            options |= {"fp16": True, "precision_constraints": "obey", "int8": precision == "int8"}
        network = trt.NetworkFromOnnxBytes(model, strongly_typed=_typed())
        try:
            with trt.TrtRunner(trt.EngineFromNetwork(network, trt.CreateConfig(**options))) as made:
                found = made.infer(dict(feeds))
                return {name: np.array(array) for name, array in found.items()}
        except Exception as error:  # Polygraphy has its own, TensorRT's come as they are
            raise BackendError(f"bisect: Polygraphy cannot build or run it: {error}") from error

    return run


def _typed() -> bool:
    """Whether this TensorRT takes types from the graph (10 and later), rather than flags."""
    version: str = import_for("tensorrt", "gpu").__version__
    return int(version.partition(".")[0]) >= 10
