"""ONNX to OpenVINO's own format, so that the runtime reads no ONNX."""

from __future__ import annotations

from collections import Counter
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
    """How many convolutions are computed in 8 bits: as many as the graph has quantized."""
    wanted = _count_quantized(onnx.load_from_string(graph.read_bytes()).graph)
    kinds = Counter(
        (_fact(operation, "layerType"), _fact(operation, "runtimePrecision"))
        for operation in compiled.get_runtime_model().get_ops()
    )
    found = sum(kinds["Convolution", dtype] for dtype in _INTEGER)
    if found < wanted:
        raise EngineBuildError(
            f"precision int8: got {found} convolutions in 8 bits from OpenVINO, expected the "
            f"{wanted} that are quantized. Build it for backend onnxruntime."
        )
    return found


def _count_quantized(graph: onnx.GraphProto) -> int:
    """Convolutions whose weights are stored in 8 bits."""
    made = {name: node.op_type for node in graph.node for name in node.output}
    return sum(
        node.op_type == "Conv" and made.get(node.input[1]) == "DequantizeLinear"
        for node in graph.node
    )


def _fact(operation: Any, name: str) -> str:
    """What the compiled network tells of an operation."""
    return str(operation.get_rt_info()[name].value)
