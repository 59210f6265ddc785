"""ONNX to ncnn: our own writer, for the operators of our part graphs and no others.

(pnnx, the usual converter, needs PyTorch, and takes the channel shuffle for a crop.)
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx

from ...errors import EngineBuildError
from ...runtime.ncnn_file import pack_model
from .ncnn_layers import layers_of
from .ncnn_split import split_readers


def convert(graph: Path, output: Path, *, precision: str) -> dict[str, Any]:
    """Write the engine file of a graph; see ``convert.CONVERTERS``.

    Raises:
        EngineBuildError: The precision, an operator or an attribute is one that is not written.
    """
    if precision != "fp32":
        raise EngineBuildError(
            f"precision: got {precision}, expected fp32, the only one that the backend ncnn has."
        )
    model = onnx.load_from_string(graph.read_bytes())
    outputs = [value.name for value in model.graph.output]
    made = split_readers(layers_of(model), outputs)
    output.write_bytes(pack_model(made))
    return {"writer": "parnet_deploy", "layers": len(made.layers)}
