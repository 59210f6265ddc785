"""Run a network in lower precision beside the float32 one and score it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx
from numpy.typing import NDArray

from .calibration_set import LoadedSet
from .chain import Array, Graphs, PartChain, batches, expose
from .convert import Layer
from .gates import Gap, Measured
from .metrics import score, sqnr_db

EMULATED_IMAGES = 256  # of a set, where the kernels have run on all of them

Network = Callable[[Array], Array]
Sets = Mapping[str, LoadedSet]
Logits = Mapping[str, Array]


def reference_logits(network: Network, sets: Sets) -> dict[str, Array]:
    """The float32 answers on every set."""
    return {name: network(found.images) for name, found in sets.items()}


def measure(
    sets: Sets,
    reference: Logits,
    *,
    emulated: Network,
    kernel: Network | None,
    clipped: float,
) -> Measured:
    """Score the emulation and, where there is one, the kernel, and compare the two.

    Args:
        sets: Evaluation images by the name of the set.
        reference: Float32 logits of the same sets.
        emulated: The lower precision as its graph is written.
        kernel: The same graph as engines run it; None where no engine is here.
        clipped: Share of held-out values outside the ranges.
    """
    if kernel is None:
        exact = {name: emulated(found.images) for name, found in sets.items()}
        scores = {name: score(exact[name], reference[name], sets[name].classes) for name in sets}
        return Measured(emulated=scores, kernel=None, gap=None, clipped=clipped)
    scores, served, gaps = {}, {}, {}
    for name, found in sets.items():
        logits, expected = kernel(found.images), reference[name]
        served[name] = score(logits, expected, found.classes)
        picked = found.spread(EMULATED_IMAGES)
        some = emulated(found.images[picked])
        classes = None if found.classes is None else found.classes[picked]
        scores[name] = score(some, expected[picked], classes)
        gaps[name] = Gap(
            images=len(picked),
            agreement=score(logits[picked], some).agreement,
            lost_db=scores[name].sqnr_db - sqnr_db(logits[picked], expected[picked]),
        )
    return Measured(emulated=scores, kernel=served, gap=gaps, clipped=clipped)


def layer_sqnr(
    full: PartChain, low: PartChain, graphs: Graphs, lowered: Graphs, images: Array
) -> dict[str, float]:
    """Of each layer, SQNR of its output in decibel, everything before it in low precision too.

    Args:
        full: The float32 parts.
        low: The same parts in lower precision.
        graphs: Float32 graphs of the parts.
        lowered: Their lower-precision graphs.
        images: What to run.
    """
    wanted = {name: _block_outputs(model) for name, model in graphs.items()}
    pairs = {
        layer: (tensor, _read_as(tensor, lowered[part]))
        for part, found in wanted.items()
        for layer, tensor in found.items()
    }
    whole = full.replace(
        {part: expose(model, list(wanted[part].values())) for part, model in graphs.items()}
    )
    less = low.replace(
        {
            part: expose(model, [_read_as(tensor, model) for tensor in wanted[part].values()])
            for part, model in lowered.items()
        }
    )
    expected: dict[str, list[NDArray[np.float32]]] = {layer: [] for layer in pairs}
    got: dict[str, list[NDArray[np.float32]]] = {layer: [] for layer in pairs}
    for batch in batches(images):
        first, second = whole.run(batch), less.run(batch)
        for layer, (tensor, other) in pairs.items():
            expected[layer].append(first[tensor])
            got[layer].append(second[other].astype(np.float32))
    return {
        layer: sqnr_db(np.concatenate(got[layer]), np.concatenate(expected[layer]))
        for layer in pairs
    }


def _block_outputs(model: onnx.ModelProto) -> dict[str, str]:
    """The last tensor that each layer of a part writes."""
    return {str(node.name).partition("/")[0]: node.output[0] for node in model.graph.node}


def _read_as(tensor: str, model: onnx.ModelProto) -> str:
    """What readers of a float32 tensor get in the lowered graph."""
    written = {name for node in model.graph.node for name in node.output}
    coded = f"{tensor}/dequantized"
    return coded if coded in written else tensor


def sensitivity(
    full: PartChain,
    only: Callable[[Layer], Graphs],
    layers: tuple[Layer, ...],
    images: Array,
    known: Mapping[str, float],
    on_layer: Callable[[Layer, float], None] = lambda layer, found: None,
) -> dict[str, float]:
    """Logit SQNR in decibel with nothing but one layer in low precision, of each layer.

    Args:
        full: The float32 parts.
        only: Gives the graph of a layer's part with just that layer lowered.
        layers: Which layers.
        images: What to run.
        known: What was measured already.
        on_layer: Called after each layer that was measured now.
    """
    reference = full.logits(images)
    found = dict(known)
    for layer in layers:
        if layer.name not in found:
            chain = full.replace(only(layer))
            found[layer.name] = sqnr_db(chain.logits(images), reference)
            on_layer(layer, found[layer.name])
    return found
