"""ONNX to OpenVINO's own format, so that the runtime reads no ONNX."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx

from ...errors import EngineBuildError
from ...extras import import_for
from ...runtime.openvino.engine_format import write_network

_INTEGER = ("u8", "i8")


def convert(graph: Path, output: Path, *, precision: str) -> dict[str, Any]:
    """See ``convert.CONVERTERS``. Weights keep their type: float32, or int8 in a quantized graph.

    Raises:
        EngineBuildError: OpenVINO cannot read the graph; or ``precision`` is int8 and it does not
            compute every quantized convolution in 8 bits.
        MissingExtraError: OpenVINO is not installed.
    """
    ov = import_for("parnet_deploy.runtime.openvino.library", "openvino").ov
    xml, weights = output.with_suffix(".xml"), output.with_suffix(".bin")
    facts: dict[str, Any] = {"openvino": ov.__version__}
    try:
        network = ov.Core().read_model(graph.read_bytes())
        ov.save_model(network, xml, compress_to_fp16=False)
        if precision == "int8":
            compiled = ov.Core().compile_model(network, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
            facts["int8_convolutions"] = _check_integers(graph, compiled)
    except RuntimeError as error:
        raise EngineBuildError(f"graph: OpenVINO cannot convert it: {error}") from error
    write_network(output, xml=xml.read_bytes(), weights=weights.read_bytes())
    return facts


def _check_integers(graph: Path, compiled: Any) -> int:
    """How many convolutions are computed in 8 bits: all that the graph has quantized."""
    wanted = set(_quantized(onnx.load(graph).graph))
    found = {
        name
        for operation in compiled.get_runtime_model().get_ops()
        if _fact(operation, "layerType") == "Convolution"
        and _fact(operation, "runtimePrecision") in _INTEGER
        for name in _fact(operation, "originalLayersNames").split(",")
    }
    if not wanted or wanted - found:
        left = ", ".join(sorted(wanted - found)[:3]) or "there is none"
        raise EngineBuildError(
            f"precision int8: got {len(wanted & found)} of {len(wanted)} quantized convolutions in "
            f"8 bits from OpenVINO, expected all ({left}). Build it for backend onnxruntime."
        )
    return len(wanted)


def _quantized(graph: onnx.GraphProto) -> Iterator[str]:
    """Names of the convolutions whose weights are stored in 8 bits."""
    made = {name: node.op_type for node in graph.node for name in node.output}
    for node in graph.node:
        if node.op_type == "Conv" and made.get(node.input[1]) == "DequantizeLinear":
            yield node.name


def _fact(operation: Any, name: str) -> str:
    """What the compiled network tells of an operation."""
    return str(operation.get_rt_info()[name].value)
