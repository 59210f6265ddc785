"""Turns the graph of a segment into the engine file of a backend."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from ..input_size import InputSize
from ..placement import Segment
from ..spec import ModelSpec
from ..steps import Progress
from .convert.convert import Item, convert_graphs
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
    make: Callable[[Sequence[tuple[EngineOrder, Path]]], list[dict[str, Any]]]


def make_engines(backend: str, orders: Sequence[EngineOrder]) -> dict[str, dict[str, Any]]:
    """Write ``<segment><suffix>`` into each order's folder.

    Returns: The record of its making by segment.

    Raises:
        EngineBuildError: The backend cannot build it; its log is quoted.
        OutOfMemoryError: The device has too little memory to build it.
        DeviceUnavailableError: There is no such device.
    """
    wanted = [(order, order.folder / engine_file(backend, order.segment)) for order in orders]
    records = ENGINES[backend].make(wanted)
    return {order.segment.name: record for order, record in zip(orders, records, strict=True)}


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


def _convert(backend: str, wanted: Sequence[tuple[EngineOrder, Path]]) -> list[dict[str, Any]]:
    """What another engine of the CPU reads, all of it converted in one child process."""
    items = [Item(order.segment.name, order.graph, output) for order, output in wanted]
    return convert_graphs(items, backend=backend, precision=wanted[0][0].precision)


def _each(
    make: Callable[[EngineOrder, Path], dict[str, Any]],
    wanted: Sequence[tuple[EngineOrder, Path]],
) -> list[dict[str, Any]]:
    return [make(order, output) for order, output in wanted]


_GRAPH = EngineKind(".onnx", partial(_each, _write_graph))
ENGINES: dict[str, EngineKind] = {
    "tensorrt": EngineKind(".plan", partial(_each, _build_plan)),
    "onnxruntime-cuda": _GRAPH,
    "onnxruntime": _GRAPH,
    "openvino": EngineKind(".openvino", partial(_convert, "openvino")),
    "mnn": EngineKind(".mnn", partial(_convert, "mnn")),
    "ncnn": EngineKind(".ncnn", partial(_convert, "ncnn")),
    "fake": _GRAPH,
}
"""How the engines of each backend are made."""
