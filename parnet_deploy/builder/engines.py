"""Turns the graph of a segment into the engine file of a backend."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from ..input_size import InputSize
from ..placement import Segment
from ..spec import ModelSpec
from ..steps import Progress
from .convert.convert import convert_graph
from .tensorrt.engine import build_engine
from .tensorrt.job import TensorRtOptions
from .tensorrt.profiles import segment_profiles


@dataclass(frozen=True, kw_only=True)
class EngineOrder:
    """What to build: a segment's graph for one device, into a folder."""

    graph: bytes
    segment: Segment
    spec: ModelSpec
    input_size: InputSize
    max_batch: int
    options: TensorRtOptions
    folder: Path
    precision: str
    on_stage: Progress


class EngineKind(NamedTuple):
    """How a backend's engines are made, and the ending of their files."""

    suffix: str
    make: Callable[[EngineOrder, Path], dict[str, Any]]


def make_engine(backend: str, order: EngineOrder) -> dict[str, Any]:
    """Write ``<segment><suffix>`` into the order's folder and return the record of its making.

    Raises:
        EngineBuildError: The backend cannot build it; its log is quoted.
        OutOfMemoryError: The device has too little memory to build it.
        DeviceUnavailableError: There is no such device.
    """
    return ENGINES[backend].make(order, order.folder / engine_file(backend, order.segment))


def engine_file(backend: str, segment: Segment) -> str:
    """Name of a segment's engine file."""
    return segment.name + ENGINES[backend].suffix


def _write_graph(order: EngineOrder, output: Path) -> dict[str, Any]:
    """The graph is the engine: ONNX Runtime compiles it when it is loaded."""
    output.write_bytes(order.graph)
    return {"graph_sha256": hashlib.sha256(order.graph).hexdigest()}


def _build_plan(order: EngineOrder, output: Path) -> dict[str, Any]:
    """A TensorRT plan, from the cache if the same was built for such a GPU before."""
    return build_engine(
        order.graph,
        output,
        name=order.segment.name,
        device=order.segment.device,
        profiles=segment_profiles(
            order.segment, order.spec, order.input_size, max_batch=order.max_batch
        ),
        options=order.options,
        on_progress=order.on_stage,
    )


def _convert(backend: str, order: EngineOrder, output: Path) -> dict[str, Any]:
    """What another engine of the CPU reads, converted in a child process."""
    return convert_graph(
        order.graph, output, backend=backend, precision=order.precision, name=order.segment.name
    )


_GRAPH = EngineKind(".onnx", _write_graph)
ENGINES: dict[str, EngineKind] = {
    "tensorrt": EngineKind(".plan", _build_plan),
    "onnxruntime-cuda": _GRAPH,
    "onnxruntime": _GRAPH,
    "openvino": EngineKind(".openvino", partial(_convert, "openvino")),
    "mnn": EngineKind(".mnn", partial(_convert, "mnn")),
    "ncnn": EngineKind(".ncnn", partial(_convert, "ncnn")),
    "fake": _GRAPH,
}
"""How the engines of each backend are made."""
