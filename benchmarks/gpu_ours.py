"""The arms of this project and the bare engines under it: ONNX Runtime, TensorRT, placements.

They need no deployment: segments are merged from the parts' graphs, engines are made into a scratch
folder, and the executor runs them as ``Runtime`` would.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gpu_arms import FP16, FP32, Array, GpuArm, Maker, Network, Unavailable

from parnet_deploy import placement as placements
from parnet_deploy.input_size import InputSize
from parnet_deploy.placement import Placement
from parnet_deploy.plan import Plan
from parnet_deploy.runtime.backend import BACKENDS, load_backend
from parnet_deploy.runtime.executor import Executor

_SUFFIX = {"tensorrt": "plan"}


def our_arms(device: str, devices: int) -> dict[tuple[str, str], Maker]:
    """Arms by (name, precision): bare engines first, then placements on 1 to n devices."""
    arms: dict[tuple[str, str], Maker] = {}
    if device == "cpu":
        for name in ("one", "streams"):
            arms[f"onnxruntime, {name}", FP32] = partial(_placed, "onnxruntime", name, 1, 0)
        return arms
    arms["onnxruntime-cuda, bare session", FP32] = _bare_session
    for backend in ("onnxruntime-cuda", "tensorrt"):
        arms[f"{backend}, one", FP32] = partial(_placed, backend, "one", 1, 0)
    arms["tensorrt, one, auxiliary streams", FP32] = partial(_placed, "tensorrt", "one", 1, None)
    for backend in ("onnxruntime-cuda", "tensorrt"):
        for name in ("streams", "recompute"):
            for count in range(1, devices + 1):
                label = f"{backend}, {name}, {count} GPU{'s' if count > 1 else ''}"
                arms[label, FP32] = partial(_placed, backend, name, count, 0)
    arms["tensorrt, one", FP16] = partial(_refuse, "the half-precision graph is not wired in here")
    return arms


def _refuse(reason: str, network: Network) -> GpuArm:
    raise Unavailable(reason)


def _placed(
    backend: str, name: str, count: int, aux_streams: int | None, network: Network
) -> GpuArm:
    """A placement of ours on ``count`` devices; ``aux_streams`` None is one less than streams."""
    if backend not in BACKENDS:
        raise Unavailable(f"this version has no backend {backend}")
    make = getattr(placements, name, None)
    if make is None:
        raise Unavailable(f"this version has no placement {name}")
    spec = network.model.spec
    chosen: Placement = make(spec) if name == "one" else make(spec, tuple(range(count)))
    aux = spec.streams - 1 if aux_streams is None else aux_streams
    folder = network.folder / f"{backend}-{name}-{count}-{aux}".replace(" ", "-")
    folder.mkdir()
    size = InputSize(low=(network.side, network.side), high=(network.side, network.side))
    suffix = _SUFFIX.get(backend, "onnx")
    engines = {segment.name: f"{segment.name}.{suffix}" for segment in chosen.segments}
    plan = Plan(backend=backend, placement=chosen, input_size=size, max_batch=1, engines=engines)
    files = {segment: folder / file for segment, file in engines.items()}
    loader = load_backend(backend)
    _write_engines(network, plan, files, aux)
    with ExitStack() as undo:
        loaded = loader.load(spec, plan, files)
        undo.callback(loaded.close)
        executor = Executor(
            spec=spec,
            placement=chosen,
            devices=loaded.devices,
            engines=loaded.engines,
            input_size=size,
        )
        undo.callback(executor.close)
        about = executor.describe()
        close = undo.pop_all().close
    return _executor_arm(network, executor, close, f"parnet_deploy, {about['mode']}")


def _executor_arm(
    network: Network, executor: Executor, close: Callable[[], None], note: str
) -> GpuArm:
    clock, shape = network.clock, (1, network.side, network.side)
    source = torch.from_numpy(network.image).to(clock.device, copy=True)
    target = torch.empty(1, network.model.spec.num_classes, device=clock.device)
    where = (source.data_ptr(), target.data_ptr(), shape)

    def enqueue() -> None:
        if clock.name == "cpu":
            executor.run(*where)
        else:
            executor.launch(*where, clock.stream.cuda_stream)

    def read() -> Array:
        clock.synchronize()
        return target.cpu().numpy()

    def answer(image: Array) -> Array:
        logits = np.empty(target.shape, np.float32)
        executor.run(image.ctypes.data, logits.ctypes.data, shape)
        return logits

    keeps = (source, target)
    return GpuArm(enqueue=enqueue, read=read, answer=answer, note=note, close=close, keeps=keeps)


def _write_engines(network: Network, plan: Plan, files: dict[str, Path], aux: int) -> None:
    for segment in plan.placement.segments:
        graph = _graph(network, segment)
        if plan.backend != "tensorrt":
            files[segment.name].write_bytes(graph)
            continue
        from parnet_deploy.builder.profiles import segment_profiles
        from parnet_deploy.builder.tensorrt import TensorRtOptions, build_engine

        build_engine(
            graph,
            files[segment.name],
            name=segment.name,
            device=segment.device,
            profiles=segment_profiles(segment, network.model.spec, plan.input_size, max_batch=1),
            options=TensorRtOptions(aux_streams=aux, optimization_level=5),
        )


def _graph(network: Network, segment: placements.Segment) -> bytes:
    """The segment as ONNX; the parts are written once for each model."""
    from parnet_deploy.builder.onnx_merge import merge_segment
    from parnet_deploy.export.to_onnx import part_to_onnx

    size = InputSize(low=(network.side, network.side), high=(network.side, network.side))
    spec = network.model.spec
    inside = [part for part in spec.parts if part.name in segment.parts]
    parts = {part.name: part_to_onnx(network.fused, part, size) for part in inside}
    return merge_segment(segment, spec, parts).SerializeToString()


def _bare_session(network: Network) -> GpuArm:
    """The one engine in a session with ONNX Runtime's defaults but for TF32 and synchronisation."""
    try:
        import onnxruntime as ort
    except ModuleNotFoundError as error:
        raise Unavailable("onnxruntime is not installed") from error
    from parnet_deploy.runtime.onnxruntime_cuda import PROVIDER, check_provider, open_session

    check_provider()
    clock, spec = network.clock, network.model.spec
    stream = clock.stream.cuda_stream
    options = {"device_id": "0", "user_compute_stream": str(stream), "use_tf32": "0"}
    session = open_session(_graph(network, placements.one(spec).segments[0]), options)
    source = torch.from_numpy(network.image).to(clock.device, copy=True)
    target = torch.empty(1, spec.num_classes, device=clock.device)
    binding: Any = session.io_binding()
    for bind, name, tensor in (
        (binding.bind_input, "image", source),
        (binding.bind_output, "logits", target),
    ):
        bind(name, "cuda", 0, np.float32, tuple(tensor.shape), tensor.data_ptr())
    run_options = ort.RunOptions()
    run_options.add_run_config_entry("disable_synchronize_execution_providers", "1")

    def read() -> Array:
        clock.synchronize()
        return target.cpu().numpy()

    return GpuArm(
        enqueue=partial(session.run_with_iobinding, binding, run_options),
        read=read,
        answer=lambda image: session.run(None, {"image": image})[0],
        note=f"InferenceSession on {PROVIDER}",
        keeps=(source, target),
    )
