"""The ``.ncnn`` engine file: ncnn's two files, the layers as text and the weights, in one.

It is a NumPy archive (``.npz``, not compressed) of two uint8 arrays, ``param`` and ``bin``. ncnn
itself trusts what it reads; so everything it could trip over is checked here before.

Source: docs/developer-guide/param-and-model-file-structure.md and operators.md of ncnn.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from ..errors import EngineLoadError

MAGIC = "7767517"
"""The first line of every param file."""

IN_PLACE = frozenset(("Clip", "ReLU", "Sigmoid", "Swish", "TanH"))
"""Layers that overwrite what they read."""

LAYERS = IN_PLACE | {
    "BinaryOp",
    "Concat",
    "Convolution",
    "ConvolutionDepthWise",
    "Crop",
    "Flatten",
    "InnerProduct",
    "Input",
    "MemoryData",
    "Pooling",
    "ShuffleChannel",
    "Split",
}
"""The layers that our converter writes."""

DAMAGE = (
    ValueError,
    LookupError,
    OSError,
    EOFError,
    RuntimeError,
    zipfile.BadZipFile,
    zlib.error,
)
"""What NumPy and zipfile raise on a file that is no archive, and our own parser on bad text."""

_VIEWS = frozenset(("Crop", "Flatten", "Split"))
"""Layers that may hand on the memory that they read."""

_FLOAT_BYTES = 4
_TAG_BYTES = 4


@dataclass(frozen=True, kw_only=True)
class NcnnLayer:
    """One line of the text. ``params`` are ncnn's numbered parameters, as text."""

    kind: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    params: Mapping[int, str] = field(default_factory=dict)

    def line(self) -> str:
        """As ncnn reads it."""
        counts = (str(len(self.inputs)), str(len(self.outputs)))
        params = (f"{key}={value}" for key, value in self.params.items())
        head = (self.kind, self.name, *counts)
        return " ".join((*head, *self.inputs, *self.outputs, *params))

    def number(self, key: int, default: int = 0) -> int:
        """A whole parameter.

        Raises:
            ValueError: It is none.
        """
        return int(self.params.get(key, default))

    def weight_bytes(self) -> int:
        """How much of the weights file this layer reads.

        Raises:
            ValueError: Its numbers are not plausible.
        """
        if self.kind in ("Convolution", "ConvolutionDepthWise"):
            return _tagged(self.number(0), size=self.number(6), bias=self.number(5))
        if self.kind == "InnerProduct":
            return _tagged(self.number(0), size=self.number(2), bias=self.number(1))
        if self.kind == "MemoryData":
            sides = [self.number(key) or 1 for key in (0, 1, 2)]
            if min(sides) < 1:
                raise ValueError(f"layer {self.name}: got sides {sides}")
            return _FLOAT_BYTES * sides[0] * sides[1] * sides[2]
        return 0


@dataclass(frozen=True, kw_only=True)
class NcnnModel:
    """Layers in the order in which ncnn runs them, and their weights one after the other."""

    layers: tuple[NcnnLayer, ...]
    weights: bytes

    def text(self) -> str:
        """The param file."""
        blobs = sum(len(layer.outputs) for layer in self.layers)
        head = (MAGIC, f"{len(self.layers)} {blobs}")
        return "\n".join((*head, *(layer.line() for layer in self.layers))) + "\n"

    def inputs(self) -> dict[str, tuple[int, int, int]]:
        """What the network reads: (C, H, W) by name; height and width are 0 where any will do."""
        return {
            layer.outputs[0]: (layer.number(2), layer.number(1), layer.number(0))
            for layer in self.layers
            if layer.kind == "Input"
        }

    def overwritten(self) -> set[str]:
        """Inputs that a layer would work on in place. ncnn crashes if it does not own them."""
        same = {name: name for name in self.inputs()}  # blob -> the input whose memory it may be
        found = set()
        for layer in self.layers:
            sources = {same[name] for name in layer.inputs if name in same}
            if layer.kind in IN_PLACE:
                found |= sources
            elif layer.kind in _VIEWS:
                same |= {name: source for name in layer.outputs for source in sources}
        return found

    def outputs(self) -> set[str]:
        """What the network writes: blobs that no layer reads."""
        written = {name for layer in self.layers for name in layer.outputs}
        return written - {name for layer in self.layers for name in layer.inputs}


def pack_model(model: NcnnModel) -> bytes:
    """The content of an engine file."""
    packed = io.BytesIO()
    text, weights = (
        np.frombuffer(part, np.uint8) for part in (model.text().encode(), model.weights)
    )
    np.savez(packed, param=text, bin=weights)
    return packed.getvalue()


def unpack_model(data: bytes, what: str) -> NcnnModel:
    """Read an engine file back. ``what`` names it in messages.

    Raises:
        EngineLoadError: It is damaged, or no file of our converter.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            damaged = archive.testzip()  # NumPy would believe a damaged header
        if damaged is not None:
            raise ValueError(f"{damaged} is damaged")
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            text, weights = (arrays[name].tobytes() for name in ("param", "bin"))
        model = NcnnModel(layers=_parse(text.decode("ascii")), weights=weights)
        _check(model)
    except DAMAGE as error:
        raise EngineLoadError(
            f"{what}: not an ncnn engine of this toolkit: {error}. Run: parnet-deploy build."
        ) from error
    return model


def _tagged(outputs: int, *, size: int, bias: int) -> int:
    """Weights with a tag before them, and a bias without."""
    if outputs < 1 or size < 1 or size % outputs or bias not in (0, 1):
        raise ValueError(f"got {size} weights for {outputs} outputs, bias {bias}")
    return _TAG_BYTES + _FLOAT_BYTES * (size + bias * outputs)


def _parse(text: str) -> tuple[NcnnLayer, ...]:
    magic, counts, *lines = text.splitlines()
    layers = tuple(_parse_line(line) for line in lines)
    expected = f"{len(layers)} {sum(len(layer.outputs) for layer in layers)}"
    if (magic, counts) != (MAGIC, expected):
        raise ValueError(f"got the head {magic} {counts}, expected {MAGIC} {expected}")
    return layers


def _parse_line(line: str) -> NcnnLayer:
    kind, name, *words = line.split()
    reads, writes = int(words[0]), int(words[1])
    blobs, params = words[2 : 2 + reads + writes], words[2 + reads + writes :]
    if min(reads, writes) < 0 or len(blobs) != reads + writes:
        raise ValueError(f"layer {name}: got {len(blobs)} blobs, expected {reads} + {writes}")
    pairs = (word.partition("=") for word in params)
    return NcnnLayer(
        kind=kind,
        name=name,
        inputs=tuple(blobs[:reads]),
        outputs=tuple(blobs[reads:]),
        params={int(key): value for key, _, value in pairs},
    )


def _check(model: NcnnModel) -> None:
    """Known layers, each blob written once and before its one reader, weights of the right size."""
    ready: set[str] = set()
    written: set[str] = set()
    for layer in model.layers:
        if layer.kind not in LAYERS:
            raise ValueError(f"layer {layer.name}: got the unknown kind {layer.kind}")
        if not ready.issuperset(layer.inputs) or len(set(layer.inputs)) != len(layer.inputs):
            raise ValueError(f"layer {layer.name}: reads what is not there")
        if not layer.outputs or not written.isdisjoint(layer.outputs):
            raise ValueError(f"layer {layer.name}: writes what is there")
        ready = (ready - set(layer.inputs)) | set(layer.outputs)
        written |= set(layer.outputs)
    expected = sum(layer.weight_bytes() for layer in model.layers)
    if len(model.weights) != expected:
        raise ValueError(f"got {len(model.weights)} bytes of weights, expected {expected}")
