"""The arms of this project and the bare engines under it: ONNX Runtime, TensorRT, placements.

They need no deployment: segments are merged from the parts' graphs, engines are made into a scratch
folder, and the executor runs them as ``Runtime`` would.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import KW_ONLY, dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gpu_arms import FP16, FP32, Array, GpuArm, Maker, Network, Unavailable

from parnet_deploy import placement as placements
from parnet_deploy.input_size import InputSize
from parnet_deploy.placement import Placement, Segment
from parnet_deploy.plan import Plan
from parnet_deploy.runtime.backend import BACKENDS, load_backend
from parnet_deploy.runtime.executor import Executor

_SUFFIX = {"tensorrt": "plan"}


def our_arms(device: str, devices: int) -> dict[tuple[str, str], Maker]:
    """Arms by (name, precision): bare engines first, then placements on 1 to n devices."""
    arms: dict[tuple[str, str], Maker] = {}
    if device == "cpu":
        for name in ("one", "streams"):
            arms[f"onnxruntime, {name}", FP32] = Placed("onnxruntime", name)
        return arms
    arms["onnxruntime-cuda, bare session", FP32] = _bare_session
    for precision in (FP32, FP16):
        for backend in ("onnxruntime-cuda", "tensorrt"):
            arms[f"{backend}, one", precision] = Placed(backend, "one", precision=precision)
        label = "tensorrt, one, auxiliary streams"
        arms[label, precision] = Placed("tensorrt", "one", aux=True, precision=precision)
    for precision in (FP32, FP16):
        for backend in ("onnxruntime-cuda", "tensorrt"):
            for name in ("streams", "recompute"):
                for count in range(1, devices + 1):
                    label = f"{backend}, {name}, {count} GPU{'s' if count > 1 else ''}"
                    arms[label, precision] = Placed(backend, name, count, precision=precision)
    return arms


@dataclass(frozen=True)
class Placed:
    """Makes the arm of a placement on so many devices; ``aux`` gives TensorRT S - 1 streams."""

    backend: str
    name: str
    count: int = 1
    _: KW_ONLY
    aux: bool = False
    precision: str = FP32

    def __call__(self, network: Network) -> GpuArm:
        """Build its engines and open them.

        Raises:
            Unavailable: This version does not have what it needs.
        """
        if self.backend not in BACKENDS:
            raise Unavailable(f"this version has no backend {self.backend}")
        make = getattr(placements, self.name, None)
        if make is None:
            raise Unavailable(f"this version has no placement {self.name}")
        spec = network.model.spec
        chosen: Placement = make(spec) if self.name == "one" else make(spec, range(self.count))
        folder = network.folder / f"{self.backend}-{self.name}-{self.count}-{self.aux}"
        folder = folder.with_name(f"{folder.name}-{self.precision}")
        folder.mkdir()
        suffix = _SUFFIX.get(self.backend, "onnx")
        plan = Plan(
            backend=self.backend,
            placement=chosen,
            input_size=_size(network),
            max_batch=1,
            engines={segment.name: f"{segment.name}.{suffix}" for segment in chosen.segments},
        )
        files = {segment: folder / file for segment, file in plan.engines.items()}
        loader = load_backend(self.backend)
        for segment in chosen.segments:
            self._write_engine(network, plan, segment, files[segment.name])
        with ExitStack() as undo:
            loaded = loader.load(spec, plan, files)
            undo.callback(loaded.close)
            executor = Executor(
                spec=spec,
                placement=chosen,
                devices=loaded.devices,
                engines=loaded.engines,
                input_size=plan.input_size,
            )
            undo.callback(executor.close)
            about = executor.describe()
            close = undo.pop_all().close
        return _executor_arm(network, executor, close, f"parnet_deploy, {about['mode']}")

    def _write_engine(self, network: Network, plan: Plan, segment: Segment, path: Path) -> None:
        graph = _graph(network, segment, self.precision)
        if self.backend != "tensorrt":
            path.write_bytes(graph)
            return
        from parnet_deploy.builder.tensorrt.engine import TensorRtOptions, build_engine
        from parnet_deploy.builder.tensorrt.profiles import segment_profiles

        spec = network.model.spec
        build_engine(
            graph,
            path,
            name=segment.name,
            device=segment.device,
            profiles=segment_profiles(segment, spec, plan.input_size, max_batch=1),
            options=TensorRtOptions(aux_streams=spec.streams - 1 if self.aux else 0),
        )


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


def _graph(network: Network, segment: Segment, precision: str = FP32) -> bytes:
    """The segment as ONNX, float32 in and out.

    Raises:
        Unavailable: Half precision is asked for, and this version cannot write it.
    """
    try:
        from parnet_deploy.builder.onnx_merge import merge_segment
        from parnet_deploy.export.to_onnx import part_to_onnx
    except ModuleNotFoundError as error:
        raise Unavailable(f"the package {error.name} is not installed") from error
    spec, size = network.model.spec, _size(network)
    inside = [part for part in spec.parts if part.name in segment.parts]
    parts = {part.name: part_to_onnx(network.fused, part, size) for part in inside}
    if precision == FP16:
        try:
            cast = import_module("parnet_deploy.quantize.fp16").cast_to_half
        except ModuleNotFoundError as error:
            raise Unavailable(f"half-precision graphs need {error.name}") from error
        parts = {name: cast(part) for name, part in parts.items()}
    return merge_segment(segment, spec, parts).SerializeToString()


def _size(network: Network) -> InputSize:
    return InputSize(low=(network.side, network.side), high=(network.side, network.side))


def _bare_session(network: Network) -> GpuArm:
    """The one engine in a session with ONNX Runtime's defaults but for TF32 and synchronisation."""
    try:
        import onnxruntime as ort
    except ModuleNotFoundError as error:
        raise Unavailable("onnxruntime is not installed") from error
    from parnet_deploy.runtime.onnxruntime.cuda_session import (
        PROVIDER,
        check_provider,
        open_session,
    )

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
