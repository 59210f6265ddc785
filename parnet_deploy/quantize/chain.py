"""The parts of a network as ONNX Runtime sessions, run one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from ..machine.cores import usable_cores
from ..runtime.onnxruntime.cpu import open_session
from ..spec import IMAGE, LOGITS, ModelSpec

Array = NDArray[np.float32]
Arrays = dict[str, Array]
Graphs = Mapping[str, onnx.ModelProto]
OnBatch = Callable[[int, int], None]

BATCH_BYTES = 64 << 20  # of activations in memory; more images at once do not run faster
LARGEST, EVERYTHING = 8, 200
"""Of a ParNet's activations, in sizes of its input: the largest ones, and all of them together."""


@dataclass(frozen=True, kw_only=True)
class ChainOptions:
    """``emulate``: compute each node as it is written, see ``open_session``."""

    emulate: bool = False
    threads: int | None = None


class PartChain:
    """Runs a network part by part; parts may have different precisions.

    Owns: a session per part. ``replace`` shares the sessions of the parts that stay.
    """

    def __init__(
        self, spec: ModelSpec, graphs: Graphs, options: ChainOptions | None = None
    ) -> None:
        self.spec = spec
        self.options = options or ChainOptions()
        self._sessions = {name: self._open(model) for name, model in graphs.items()}

    def _open(self, model: onnx.ModelProto) -> Any:
        threads = self.options.threads or usable_cores()
        data = model.SerializeToString(deterministic=True)
        return open_session(data, threads=threads, emulate=self.options.emulate)

    def replace(self, graphs: Graphs) -> PartChain:
        """The same network with some parts in another form."""
        chain = PartChain(self.spec, {}, self.options)
        opened = {name: self._open(model) for name, model in graphs.items()}
        chain._sessions = {**self._sessions, **opened}
        return chain

    def run(self, images: Array) -> Arrays:
        """Every output of every part, and the image, by name."""
        values: Arrays = {IMAGE: images}
        for part in self.spec.parts:
            session = self._sessions[part.name]
            names = [output.name for output in session.get_outputs()]
            feeds = {name: values[name] for name in part.inputs}
            values |= dict(zip(names, session.run(names, feeds), strict=True))
        return values

    def logits(self, images: Array, on_batch: OnBatch = lambda done, total: None) -> Array:
        """Logits (N, K) of any number of images."""
        found = []
        done = 0
        for batch in batches(images):
            found.append(self.run(batch)[LOGITS])
            done += len(batch)
            on_batch(done, len(images))
        return np.concatenate(found)

    def timed(self, image: Array) -> Callable[[], object]:
        """A call that runs the chain on this image once, to be timed."""
        return lambda: self.run(image)


def batches(images: Array, kept: int = LARGEST) -> Iterator[Array]:
    """The images in groups that keep memory small; ``kept`` of each stays in it at once."""
    one = max(images[0].nbytes * kept, 1)
    size = int(min(max(BATCH_BYTES // one, 1), 64))
    for start in range(0, len(images), size):
        yield images[start : start + size]


def expose(model: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    """A copy of a graph that also gives these inner tensors."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    there = {output.name for output in copy.graph.output}
    kinds = element_types(model)
    for name in names:
        if name not in there:
            value = helper.make_tensor_value_info(name, kinds[name], None)
            copy.graph.output.append(value)
    return copy


def element_types(model: onnx.ModelProto) -> dict[str, int]:
    """Type of every tensor that the nodes of a graph write."""
    shapes = onnx.shape_inference.infer_shapes(model).graph
    known = {v.name: v.type.tensor_type.elem_type for v in (*shapes.value_info, *shapes.output)}
    written = {name for node in model.graph.node for name in node.output}
    return {name: kind for name, kind in known.items() if name in written}
