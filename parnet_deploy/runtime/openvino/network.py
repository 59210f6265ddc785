"""A network of OpenVINO: read, checked against its segment, compiled for the CPU."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...errors import EngineLoadError
from ...placement import Segment
from ...plan import Plan
from ...spec import ModelSpec
from ..engine_file import EngineFile
from .engine_format import unpack_network
from .failures import CAUGHT, load_error
from .library import ov

Shapes = Mapping[str, tuple[int, ...]]

HINTS = {"fp32": "f32", "fp16": "f32", "int8": "f32", "bf16": "bf16"}
"""What floats are computed in. Left to itself, OpenVINO takes bfloat16 where the CPU has it."""


def read_network(file: EngineFile) -> Any:
    """The ``openvino.Model`` of an engine's file. It owns its weights, once, as they lie there.

    Raises:
        EngineLoadError: The file is no engine of OpenVINO.
        OutOfMemoryError: It does not fit into memory.
    """
    try:
        xml, weights = unpack_network(file.read_bytes())
        return ov.Core().read_model(xml, ov.Tensor(weights))  # copied: it keeps no array alive
    except CAUGHT as error:
        raise load_error(error, f"engine {file}") from error


def compile_network(network: Any, shapes: Shapes, *, precision: str, threads: int) -> Any:
    """A ``CompiledModel`` for these shapes of its inputs; the network stays as it is.

    Its threads are not pinned, for cores belong to other work of the process too. One request of
    it runs at a time.

    Raises:
        EngineLoadError: It cannot be compiled, or the CPU does not compute in this precision.
        OutOfMemoryError: It does not fit into memory.
    """
    hint = HINTS[precision]
    options = {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": hint,
        "ENABLE_CPU_PINNING": False,
    }
    what = f"network {network.get_friendly_name()}"
    try:
        fixed = network.clone()
        fixed.reshape({name: list(shape) for name, shape in shapes.items()})
        compiled = ov.Core().compile_model(fixed, "CPU", options)
        got = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
    except CAUGHT as error:
        raise load_error(error, what) from error
    if got != hint:
        raise EngineLoadError(
            f"{what}: got {got} from OpenVINO, expected {hint}: this CPU has no kernels for "
            f"{precision}. Run: parnet-deploy build on this machine, without that precision."
        )
    return compiled


def check_network(network: Any, segment: Segment, spec: ModelSpec, plan: Plan) -> None:
    """Refuse a file that is not this segment: names, dtypes and shapes of what it reads and writes.

    Raises:
        EngineLoadError: With what differs.
    """
    inputs, outputs = _by_name(network.inputs), _by_name(network.outputs)
    if set(inputs) != set(segment.inputs) or not set(segment.outputs) <= set(outputs):
        raise EngineLoadError(
            f"engine of segment {segment.name}: got {sorted(inputs)} -> {sorted(outputs)}, "
            f"expected {sorted(segment.inputs)} -> {sorted(segment.outputs)}. "
            "Run: parnet-deploy build."
        )
    tensors = spec.tensors
    for name in (*segment.inputs, *segment.outputs):
        port = inputs.get(name) or outputs[name]
        for size in {plan.input_size.low, plan.input_size.high}:
            for batch in {1, plan.max_batch}:
                _check_port(port, name, (batch, *tensors[name].shape(*size)), segment)


def _by_name(ports: Any) -> dict[str, Any]:
    return {name: port for port in ports for name in port.get_names()}


def _check_port(port: Any, name: str, shape: tuple[int, ...], segment: Segment) -> None:
    dtype, there = port.get_element_type().get_type_name(), port.get_partial_shape()
    if dtype != "f32" or not there.compatible(ov.PartialShape(list(shape))):
        raise EngineLoadError(
            f"engine of segment {segment.name}, tensor {name}: got {dtype} {there}, "
            f"expected f32 {list(shape)}. Run: parnet-deploy build."
        )
