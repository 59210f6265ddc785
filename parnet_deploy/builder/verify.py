"""Hold engines against the float32 reference: each by itself, then the whole."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack, suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..compare import ENGINE_TOLERANCE, Parity, compare
from ..deployment import Deployment
from ..errors import BackendError, MissingExtraError
from ..extras import import_for
from ..placement import Segment
from ..plan import Plan
from ..runtime.backend import LoadedPlan, load_backend
from ..runtime.device import Stream, Tensor
from ..runtime.engine_file import EngineFile
from ..runtime.session import Runtime
from ..spec import IMAGE, ModelSpec
from .precisions import FLOAT32, Source

EVALUATOR_OPSET = 19

Arrays = dict[str, NDArray[np.float32]]


def part_values(
    deployment: Deployment, image: NDArray[np.float32], source: Source = FLOAT32
) -> Arrays:
    """Every tensor between parts, by the part graphs of a precision on the CPU.

    The export proved the float32 graphs against PyTorch, the gates those in lower precision; they
    are the reference of engines. The latter are computed as they are written: kernels that
    saturate here must not be their own reference.
    """
    values = {IMAGE: image}
    for part in deployment.spec.parts:
        graph = deployment.read_bytes(f"{source.folder}/{part.name}.onnx")
        feeds = {name: values[name] for name in part.inputs}
        values |= run_graph(graph, feeds, emulate=source is not FLOAT32)
    return values


def run_graph(model: bytes, feeds: Arrays, *, emulate: bool = False) -> Arrays:
    """Every output of an ONNX model by its name, from ONNX Runtime.

    A machine with TensorRT need not have ONNX Runtime: there ONNX's own reference evaluator does
    it, in numpy, slowly.
    """
    try:
        cpu = import_for("parnet_deploy.runtime.onnxruntime.cpu", "cpu")
    except MissingExtraError as error:
        if error.package != "onnxruntime":
            raise
        evaluator = _reference_evaluator(model)
        names = [str(name) for name in evaluator.output_names]
        return dict(zip(names, evaluator.run(names, dict(feeds)), strict=True))
    found: Arrays = cpu.run_once(model, feeds, emulate=emulate)
    return found


def _reference_evaluator(model: bytes) -> Any:
    """ONNX's evaluator; it knows Q/DQ from opset 19 on, which reads our graphs as 17 does."""
    import onnx
    from onnx.reference import ReferenceEvaluator

    graph = onnx.load_from_string(model)
    for opset in graph.opset_import:
        if opset.domain == "":
            opset.version = max(opset.version, EVALUATOR_OPSET)
    return ReferenceEvaluator(graph)


def verify_engines(
    spec: ModelSpec,
    plan: Plan,
    files: Mapping[str, EngineFile],
    values: Arrays,
    *,
    tolerance: float = ENGINE_TOLERANCE,
) -> list[Parity]:
    """Run each engine alone on reference inputs and compare every output.

    Returns the comparisons; none is required to pass.
    """
    loaded = load_backend(plan.backend).load(spec, plan, files)
    checks = []
    try:
        for segment in plan.placement.segments:
            got = _run_alone(loaded, segment, spec, values)
            for name, array in got.items():
                what = f"engine {segment.name}, {name}"
                checks.append(compare(array, values[name], tolerance=tolerance, what=what))
    finally:
        loaded.close()
    return checks


def verify_whole(
    runtime: Runtime,
    image: NDArray[np.float32],
    logits: NDArray[np.float32],
    *,
    max_batch: int,
    tolerance: float = ENGINE_TOLERANCE,
) -> list[Parity]:
    """Run the whole plan on the reference image, alone and as the last of a batch."""
    checks = [compare(runtime(image), logits, tolerance=tolerance, what="whole, batch 1")]
    if max_batch > 1:
        batch = np.concatenate([np.flip(image, axis=-1), image])  # (2, C, H, W)
        what = "whole, second of batch 2"
        checks.append(compare(runtime(batch)[1:], logits, tolerance=tolerance, what=what))
    return checks


def _run_alone(loaded: LoadedPlan, segment: Segment, spec: ModelSpec, values: Arrays) -> Arrays:
    """One engine on its device, through the same protocol as the executor."""
    device = loaded.devices[segment.device]
    engine = loaded.engines[segment.name]
    inputs = {name: np.ascontiguousarray(values[name]) for name in segment.inputs}
    outputs = {name: np.full_like(values[name], np.nan) for name in segment.outputs}
    with ExitStack() as made:  # freed in the right order: what is enqueued is over first
        tensors = {}
        for name, array in (inputs | outputs).items():
            buffer = device.allocate(array.nbytes)
            made.callback(buffer.close)
            tensors[name] = Tensor(buffer=buffer, shape=array.shape)
        stream = device.create_stream(0)
        made.callback(stream.close)
        binding = engine.bind(tensors, slot=0)
        made.callback(binding.close)
        made.callback(_settle, stream)
        for name, array in inputs.items():
            device.upload(tensors[name].buffer, array.ctypes.data, array.nbytes, stream)
        engine.enqueue(binding, stream)
        for name, array in outputs.items():
            device.download(array.ctypes.data, tensors[name].buffer, array.nbytes, stream)
        stream.synchronize()
    return outputs


def _settle(stream: Stream) -> None:
    """Wait for what is enqueued, if anything; what went wrong was raised before."""
    with suppress(BackendError):
        stream.synchronize()
