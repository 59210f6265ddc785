"""ResNets as ONNX graphs with random weights.

Normalisation is already folded into the convolutions, as whoever deploys a ResNet would have it, so
the comparison is kinder to them than their training form. Weights do not change how long a dense
convolution takes; they are random, and drawn so that activations stay in range.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from .resnet import Conv, ResNet, resnet

OPSET, IR_VERSION = 17, 8  # as in our own graphs
_LAST_SCALE = 0.5  # of a block's last weights, or the variance would double from block to block


def make_model(
    *, network: str, classes: int, in_channels: int, batch: int, size: Sequence[int]
) -> bytes:
    """A network of the table, serialized."""
    made = resnet(network, classes=classes, in_channels=in_channels)
    data: bytes = make_graph(made, batch, *size).SerializeToString()
    return data


def make_graph(
    network: ResNet, batch: int, height: int, width: int, seed: int = 0
) -> onnx.ModelProto:
    """The network for inputs "image" (N, C, H, W), all fixed; "logits" (N, K) come out."""
    graph = _Graph(seed)
    value = graph.relu(graph.conv(network.stem, "image"))
    value = graph.node("MaxPool", [value], kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    for block in network.residual_blocks():
        shortcut = value
        for conv in block.main:
            value = graph.conv(conv, value)
            value = value if conv.last else graph.relu(value)
        if block.projection is not None:
            shortcut = graph.conv(block.projection, shortcut)
        value = graph.relu(graph.node("Add", [value, shortcut]))
    value = graph.node("Flatten", [graph.node("GlobalAveragePool", [value])], axis=1)
    graph.classifier(value, network.features, network.classes)
    sides = [batch, network.in_channels, height, width]
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "resnet",
            [helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, sides)],
            [
                helper.make_tensor_value_info(
                    "logits", onnx.TensorProto.FLOAT, [batch, network.classes]
                )
            ],
            graph.weights,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        producer_name="parnet_deploy",
    )
    model.ir_version = IR_VERSION
    return model


class _Graph:
    """Nodes and weights while they are put together; each method returns the name of its value."""

    def __init__(self, seed: int) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self._random = np.random.default_rng(seed)

    def node(self, kind: str, inputs: list[str], output: str = "", **attributes: Any) -> str:
        output = output or f"{kind.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def relu(self, value: str) -> str:
        return self.node("Relu", [value])

    def conv(self, conv: Conv, value: str) -> str:
        shape = (conv.outputs, conv.inputs, conv.kernel, conv.kernel)
        inputs = [value, *self._parameters(conv.name, shape, _LAST_SCALE if conv.last else 1.0)]
        return self.node(
            "Conv",
            inputs,
            conv.name,
            kernel_shape=[conv.kernel] * 2,
            strides=[conv.stride] * 2,
            pads=[conv.kernel // 2] * 4,
        )

    def classifier(self, value: str, features: int, classes: int) -> str:
        inputs = [value, *self._parameters("classifier", (classes, features), 1.0)]
        return self.node("Gemm", inputs, "logits", transB=1)

    def _parameters(self, name: str, shape: tuple[int, ...], scale: float) -> list[str]:
        """He-initialised weights and small biases."""
        spread = np.float32(scale * (2 / np.prod(shape[1:])) ** 0.5)
        weight = self._random.standard_normal(shape, np.float32) * spread
        bias = np.float32(0.1) * self._random.standard_normal(shape[0], np.float32)
        names = [f"{name}.weight", f"{name}.bias"]
        self.weights += map(numpy_helper.from_array, (weight, bias), names)
        return names
