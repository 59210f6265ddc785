"""What an engine is made of: its layers, and in which precision they run, of any version.

The inspector's JSON changed from version to version. Up to 10 a tensor has "Format/Datatype" with
text such as "Row major linear FP16 format"; in 11 it has "Format" and "DataType". A plan built
without details has layer names only. Where shapes are dynamic, a format is known only through an
execution context whose input shapes are set.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ...errors import EngineLoadError

UNKNOWN = "unknown"
MOVING = ("Reformat", "Shuffle", "NoOp", "Constant", "Identity", "Cast", "Signal", "Wait")
"""Types of layers that move or convert data and compute nothing."""

_FUSED = ("myelin", "foreignnode")
_WORDS = (
    ("int8", r"int8|i8\b"),
    ("float16", r"half|fp16|float16"),
    ("bfloat16", r"bf16|bfloat16"),
    ("float8", r"fp8|float8"),
    ("float32", r"float|fp32"),
    ("int32", r"int32"),
    ("int64", r"int64"),
    ("bool", r"bool"),
)


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One layer of an engine. ``precision`` is that of its first input, as far as it is told.

    ``seen`` holds every precision among its inputs, outputs and weights. ``fused`` marks a layer
    that TensorRT compiled from many and whose inside is not told.
    """

    name: str
    kind: str
    precision: str
    seen: frozenset[str]
    fused: bool = False

    @property
    def moves(self) -> bool:
        """Whether it moves or converts data only."""
        return self.kind in MOVING


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """All layers of an engine and the names of its inputs and outputs."""

    layers: tuple[Layer, ...]
    tensors: tuple[str, ...]

    @property
    def by_precision(self) -> dict[str, int]:
        """Number of computing layers by precision."""
        return dict(sorted(Counter(x.precision for x in self.layers if not x.moves).items()))

    @property
    def reformats(self) -> int:
        """Number of layers that only change format or precision of a tensor."""
        return sum(layer.kind == "Reformat" for layer in self.layers)

    @property
    def fused(self) -> int:
        """Number of layers whose inside is not told."""
        return sum(layer.fused for layer in self.layers)

    def runs_in(self, precision: str) -> bool:
        """Whether some computing layer reads, writes or holds weights in it."""
        return any(precision in layer.seen for layer in self.layers if not layer.moves)


def inspect_engine(trt: Any, engine: Any, context: Any = None) -> Inspection:
    """Read an engine's layers.

    Args:
        trt: The module.
        engine: Built with details, or only names are known.
        context: One whose profile and input shapes are set, where shapes are dynamic.

    Raises:
        EngineLoadError: The inspector's text is not the JSON that it should be.
    """
    inspector = engine.create_engine_inspector()
    if context is not None:
        inspector.execution_context = context
    return read_inspection(inspector.get_engine_information(trt.LayerInformationFormat.JSON))


def read_inspection(text: str) -> Inspection:
    """Read the inspector's JSON of any version.

    Raises:
        EngineLoadError: It is not JSON, or not of this form.
    """
    try:
        data = json.loads(text)
        layers = tuple(_layer(item) for item in data["Layers"])
        tensors = data["I/O Tensors"] if "I/O Tensors" in data else data.get("Bindings", [])
        names = tuple(item if isinstance(item, str) else item["Name"] for item in tensors)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise EngineLoadError(
            f"engine inspector: got {text[:80]!r} ({error!r}), expected JSON with layers. "
            "Report this with the version of TensorRT."
        ) from error
    return Inspection(layers=layers, tensors=names)


def _layer(item: str | Mapping[str, Any]) -> Layer:
    if isinstance(item, str):  # built without details
        return Layer(name=item, kind=UNKNOWN, precision=UNKNOWN, seen=frozenset())
    name, kind = str(item["Name"]), str(item.get("LayerType", UNKNOWN))
    inputs = [_precision(tensor) for tensor in item.get("Inputs", [])]
    outputs = [_precision(tensor) for tensor in item.get("Outputs", [])]
    weights = [_word(str(held.get("Type", ""))) for held in _held(item)]
    seen = [word for word in (*inputs, *weights, *outputs) if word != UNKNOWN]
    return Layer(
        name=name,
        kind=kind,
        precision=seen[0] if seen else UNKNOWN,
        seen=frozenset(seen),
        fused=any(word in f"{kind} {name}".lower() for word in _FUSED),
    )


def _held(item: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    found = (item.get(key) for key in ("Weights", "Bias"))
    return (held for held in found if isinstance(held, Mapping) and held.get("Count", 1))


def _precision(tensor: Mapping[str, Any]) -> str:
    """From the separate type of 11 if it is there: its format's text may name another one."""
    for key in ("DataType", "Datatype", "Format/Datatype", "Format/DataType", "Format"):
        if key in tensor:
            return _word(str(tensor[key]))
    return UNKNOWN


def _word(text: str) -> str:
    """The precision that a text speaks of; "N/A due to dynamic shapes" speaks of none."""
    for word, pattern in _WORDS:
        if re.search(rf"(?<![a-z])(?:{pattern})", text.lower()):
            return word
    return UNKNOWN
