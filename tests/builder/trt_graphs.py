"""Small graphs for TensorRT builds: float32, FLOAT16 between casts, and Q/DQ."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

CHANNELS = 32  # what every INT8 kernel takes


def conv_graph(
    *,
    half: bool = False,
    quantized: bool = False,
    batch: int | None = None,
    float_tail: bool = False,
) -> bytes:
    """Two convolutions with a ReLU between, (N, 32, H, W) to the same; size free.

    The batch is free too unless one is given. ``float_tail`` adds a Sigmoid in float32 behind a
    half network.
    """
    kind = np.float16 if half else np.float32
    random = np.random.default_rng(0)
    nodes, weights, x = [], [], "x"
    if half:
        nodes.append(helper.make_node("Cast", [x], ["x16"], name="to_half", to=TensorProto.FLOAT16))
        x = "x16"
    for index in range(2):
        weight = random.normal(size=(CHANNELS, CHANNELS, 3, 3)).astype(kind) / 17
        weights.append(numpy_helper.from_array(weight.astype(kind), f"w{index}"))
        w = f"w{index}"
        if quantized:
            x = _quantize(nodes, weights, x, f"q{index}", kind)
            w = _quantize(nodes, weights, w, f"{w}q", kind)
        out = f"c{index}"
        nodes.append(helper.make_node("Conv", [x, w], [out], name=f"conv{index}", pads=[1] * 4))
        x = out
        if index == 0:
            nodes.append(helper.make_node("Relu", [x], ["r"], name="relu"))
            x = "r"
    if half:
        nodes.append(helper.make_node("Cast", [x], ["c32"], name="to_float", to=TensorProto.FLOAT))
        x = "c32"
    if float_tail:
        nodes.append(helper.make_node("Sigmoid", [x], ["s"], name="tail"))
        x = "s"
    nodes[-1].output[0] = "y"
    axes = [batch or "batch", CHANNELS, "height", "width"]
    inputs, outputs = (
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, axes)] for name in ("x", "y")
    )
    graph = helper.make_graph(nodes, "graph", inputs, outputs, weights)
    opset = 19 if half and quantized else 17  # 17 is what TensorRT 8.6 reads
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    model.ir_version = 9 if opset == 19 else 8
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString(deterministic=True)


def _quantize(nodes: list, weights: list, x: str, name: str, kind: type) -> str:
    q, dq = f"{name}.q", f"{name}.dq"
    weights.append(numpy_helper.from_array(np.array(0.05, kind), f"{name}.scale"))
    weights.append(numpy_helper.from_array(np.array(0, np.int8), f"{name}.zero"))
    scale = [f"{name}.scale", f"{name}.zero"]
    nodes.append(helper.make_node("QuantizeLinear", [x, *scale], [q], name=f"{name}/Q"))
    nodes.append(helper.make_node("DequantizeLinear", [q, *scale], [dq], name=f"{name}/DQ"))
    return dq
