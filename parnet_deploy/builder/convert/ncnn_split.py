"""Give each reader of a tensor a blob of its own, as ncnn wants it: a blob is read once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from ...errors import EngineBuildError
from ...runtime.ncnn_file import NcnnLayer, NcnnModel


@dataclass(frozen=True, kw_only=True)
class Written:
    """A layer over tensors, which may have many readers, and the weights that it reads."""

    layer: NcnnLayer
    weights: bytes = b""


def split_readers(layers: Iterable[Written], outputs: Sequence[str]) -> NcnnModel:
    """Put a Split behind every tensor with several readers. The caller is one of an output's.

    Inputs and outputs keep their names. What nobody reads is left out.

    Raises:
        EngineBuildError: An input is an output too.
    """
    kept = _reachable(list(layers), outputs)
    readers = Counter(name for item in kept for name in item.layer.inputs)
    readers.update(outputs)
    given: dict[str, Iterator[str]] = {}
    done: list[NcnnLayer] = []
    for item in kept:
        layer = item.layer
        inputs = tuple(next(given[name]) for name in layer.inputs)
        source, *_ = layer.outputs
        count = readers[source]
        if layer.kind == "Input" and source in outputs:
            raise EngineBuildError(f"tensor {source}: is input and output, expected one of them.")
        if count <= 1:
            given[source] = iter((source,) * count)
            done.append(replace(layer, inputs=inputs))
            continue
        whole = source if layer.kind == "Input" else f"{source}/all"
        names = [f"{source}/{i}" for i in range(count)]
        if source in outputs:
            names[-1] = source
        given[source] = iter(names)
        done.append(replace(layer, inputs=inputs, outputs=(whole,)))
        done.append(
            NcnnLayer(kind="Split", name=f"{source}/split", inputs=(whole,), outputs=tuple(names))
        )
    return NcnnModel(layers=tuple(done), weights=b"".join(item.weights for item in kept))


def _reachable(layers: list[Written], outputs: Sequence[str]) -> list[Written]:
    """The layers that an output needs, and every input, in their order."""
    wanted, kept = set(outputs), []
    for item in reversed(layers):
        if item.layer.kind == "Input" or wanted & set(item.layer.outputs):
            wanted |= set(item.layer.inputs)
            kept.append(item)
    return kept[::-1]
