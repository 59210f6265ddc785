"""Write each part of a fused network as one ONNX graph, straight from the fused weights.

The graphs are written node by node with ``onnx.helper`` rather than traced from torch: node names
stay those of the blocks (quantization and layer reports refer to them), the bytes are the same on
every run (unchanged steps are skipped by hash), and only operators that every backend knows are
used (opset 17: what TensorRT 8.6 still reads).

Batch is dynamic; height and width are fixed unless a range is given.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from .. import __version__
from ..input_size import InputSize
from ..spec import LOGITS, BlockSpec, ModelSpec, PartSpec, TensorSpec
from .fuse import SHUFFLE_GROUPS, FusedNetwork, bias_map, keeps_shuffle

OPSET = 17
IR_VERSION = 8  # the one that belongs to opset 17 (ONNX 1.12)
BATCH = "batch"


def part_to_onnx(
    network: FusedNetwork,
    part: PartSpec,
    size: InputSize,
    graph_type: type[PartGraph] | None = None,
) -> onnx.ModelProto:
    """One part as a checked ONNX model. ``graph_type`` writes it in another form, to compare.

    Shapes: as ``spec.tensors`` says, with a leading dynamic batch axis; all float32.

    Raises:
        onnx.checker.ValidationError: The graph is wrong, which would be a bug here.
    """
    graph = (graph_type or PartGraph)(network, size)
    inputs: Sequence[str] = part.inputs
    for block in part.blocks:
        inputs = (graph.block(block, inputs),)
    if part.output == LOGITS:
        graph.classifier(inputs[0])
    else:
        graph.node("Identity", [inputs[0]], f"{part.name}/output", output=part.output)
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            part.name,
            [_value_info(network.spec, name, size) for name in part.inputs],
            [_value_info(network.spec, part.output, size)],
            graph.initializers,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        producer_name="parnet_deploy",
        producer_version=__version__,
    )
    model.ir_version = IR_VERSION
    graph.inline_output(model)
    onnx.checker.check_model(model, full_check=True)
    return model


def _value_info(spec: ModelSpec, name: str, size: InputSize) -> onnx.ValueInfoProto:
    dims = _shape(spec.tensors[name], size)
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, [BATCH, *dims])


def _shape(tensor: TensorSpec, size: InputSize) -> list[int | str]:
    shape: list[int | str] = list(tensor.shape(*size.high))
    if tensor.level is not None and not size.fixed:
        shape[1:] = [f"{tensor.name}_height", f"{tensor.name}_width"]
    return shape


class PartGraph:
    """Collects nodes and initializers; every name starts with the block it belongs to."""

    def __init__(self, network: FusedNetwork, size: InputSize) -> None:
        self.network = network
        self.size = size
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []

    def block(self, block: BlockSpec, inputs: Sequence[str]) -> str:
        """Append a block; returns the name of its output."""
        if block.kind == "residual":
            out = self._residual(block, inputs[0])
        elif block.kind == "down":
            out = self._down(block, inputs[0])
        else:
            out = self.fusion(block, inputs)
        out = self._activation(block, out)
        if keeps_shuffle(block, self.network.spec):
            order = np.arange(block.out_channels).reshape(SHUFFLE_GROUPS, -1).T.flatten()
            index = self.constant(f"{block.name}/shuffle.order", order)
            out = self.node("Gather", [out, index], f"{block.name}/shuffle", axis=1)
        return out

    def classifier(self, features: str) -> None:
        """Append global average pool and the linear layer; writes the logits."""
        pooled = self.node("GlobalAveragePool", [features], "head/pool")
        flat = self.node("Flatten", [pooled], "head/flatten", axis=1)
        weight, bias = (self.weight(f"head.fc.{name}") for name in ("weight", "bias"))
        self.node("Gemm", [flat, weight, bias], "head/fc", output=LOGITS, transB=1)

    def _residual(self, block: BlockSpec, x: str) -> str:
        name = block.name
        gate = self.gate(block, [x], ["gate"])
        scale, shift = (self.weight(f"{name}.side.{f}", (-1, 1, 1)) for f in ("scale", "shift"))
        side = self.node("Mul", [x, scale], f"{name}/side_scale")
        side = self.node("Add", [side, shift], f"{name}/side")
        side = self.node("Mul", [side, gate], f"{name}/gated_side")
        return self.node("Add", [self.conv(block, x, "conv"), side], f"{name}/sum")

    def _down(self, block: BlockSpec, x: str) -> str:
        gate = self.gate(block, [x], ["gate"])
        return self.node("Mul", [self.conv(block, x, "conv"), gate], f"{block.name}/gated")

    def fusion(self, block: BlockSpec, inputs: Sequence[str]) -> str:
        """A fusion block up to its activation: one convolution per input, and their sum.

        Chosen by measurement (benchmarks/fusion_forms.py, ParNet-S on ONNX Runtime): one
        convolution on a concat, or an elementwise affine in place of the bias map, takes 1 to 3 %
        longer and needs more operations (Slice, Concat, Mul, Add); and INT8 would tie both inputs
        of a concat to one scale.
        """
        name = block.name
        gate = self.gate(block, inputs, ["gate_a", "gate_b"])
        a, b = (self.conv(block, x, f"conv_{s}") for x, s in zip(inputs, "ab", strict=True))
        out = self.node("Add", [a, b], f"{name}/sum")
        out = self.node("Add", [out, self.bias_map(block, inputs[0])], f"{name}/bias")
        return self.node("Mul", [out, gate], f"{name}/gated")

    def _activation(self, block: BlockSpec, x: str) -> str:
        if self.network.spec.activation == "relu":
            return self.node("Relu", [x], f"{block.name}/relu")
        gate = self.node("Sigmoid", [x], f"{block.name}/silu_sigmoid")
        return self.node("Mul", [x, gate], f"{block.name}/silu")

    def gate(self, block: BlockSpec, inputs: Sequence[str], fields: Sequence[str]) -> str:
        """Sigmoid of 1x1 convolutions of the pooled inputs, (N, O, 1, 1)."""
        logit = ""
        for x, field in zip(inputs, fields, strict=True):
            pool = self.node("GlobalAveragePool", [x], f"{block.name}/{field}_pool")
            conv = self.conv(block, pool, field, with_bias=not logit)
            logit = self.node("Add", [logit, conv], f"{block.name}/gate_sum") if logit else conv
        return self.node("Sigmoid", [logit], f"{block.name}/gate_sigmoid")

    def conv(self, block: BlockSpec, x: str, field: str, *, with_bias: bool | None = None) -> str:
        """Append a convolution with the weights of a field, and its bias if there is one."""
        tensors = self.network.block(block.name)
        _, channels, kernel = tensors[f"{field}.weight"].shape[:3]
        bias = f"{'gate' if field.startswith('gate') else field}.bias"
        inputs = [x, self.weight(f"{block.name}.{field}.weight")]
        if with_bias is not False and bias in tensors:
            inputs.append(self.weight(f"{block.name}.{bias}"))
        return self.node(
            "Conv",
            inputs,
            f"{block.name}/{field}",
            kernel_shape=[kernel, kernel],
            strides=[block.stride if kernel > 1 else 1] * 2,
            pads=[kernel // 2] * 4,
            group=block.in_channels // channels,
        )

    def bias_map(self, block: BlockSpec, x: str) -> str:
        """A constant (1, O, H, W) at a fixed size, else computed from the size of ``x``."""
        fields = self.network.block(block.name)
        if self.size.fixed:
            height, width = self.map_size(block)
            exact = {name: tensor.double() for name, tensor in fields.items()}
            value = bias_map(exact, height, width, stride=block.stride).numpy()
            return self.constant(f"{block.name}.bias_map", value.astype(np.float32))
        name = f"{block.name}/ones"
        shape = self.node("Shape", [x], f"{name}_shape", start=2)
        one = self.constant(f"{name}_lead", np.array([1, 1]))
        shape = self.node("Concat", [one, shape], f"{name}_full", axis=0)
        value_one = numpy_helper.from_array(np.ones(1, np.float32))
        ones = self.node("ConstantOfShape", [shape], name, value=value_one)
        weight = self.weight(f"{block.name}.border.weight")
        bias = self.weight(f"{block.name}.conv.bias")
        return self.node(
            "Conv",
            [ones, weight, bias],
            f"{block.name}/border",
            kernel_shape=[3, 3],
            strides=[block.stride] * 2,
            pads=[1] * 4,
        )

    def map_size(self, block: BlockSpec) -> tuple[int, int]:
        """Input height and width of a fusion block: it is the first of its part."""
        spec = self.network.spec
        part = next(part for part in spec.parts if block in part.blocks)
        _, height, width = spec.tensors[part.inputs[0]].shape(*self.size.high)
        return height, width

    def weight(self, name: str, shape: tuple[int, ...] | None = None) -> str:
        """A fused tensor as a constant, reshaped if a shape is given."""
        value = self.network.tensors[name].numpy()
        return self.constant(name, value if shape is None else value.reshape(shape))

    def constant(self, name: str, value: NDArray[np.float32] | NDArray[np.int64]) -> str:
        """Add a constant; returns its name."""
        self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def node(
        self, kind: str, inputs: Sequence[str], name: str, output: str = "", **attributes: Any
    ) -> str:
        """Append a node; its output bears its name unless another is given."""
        self.nodes.append(
            helper.make_node(kind, list(inputs), [output or name], name=name, **attributes)
        )
        return output or name

    def inline_output(self, model: onnx.ModelProto) -> None:
        """Let the last real node write the part's output instead of an Identity after it."""
        nodes = model.graph.node
        if len(nodes) > 1 and nodes[-1].op_type == "Identity":
            nodes[-2].output[0] = nodes[-1].output[0]
            del nodes[-1]
