"""Counts against what is known, and the graph against PyTorch's own operators."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch.nn import functional

from parnet_deploy.bench.arms.resnet import RESNETS, ResNet, resnet
from parnet_deploy.bench.arms.resnet_graph import make_graph, make_model
from parnet_deploy.errors import SpecError
from parnet_deploy.runtime.onnxruntime.cpu import run_once

# Parameters and multiply-accumulates at 224x224 as torchvision states them for its weights
# (torchvision/models/resnet.py, "num_params" and "_ops", which counts multiply-accumulates).
KNOWN = {
    "resnet18": (11_689_512, 1.814),
    "resnet34": (21_797_672, 3.664),
    "resnet50": (25_557_032, 4.089),
    "resnet101": (44_549_160, 7.801),
}


@pytest.mark.parametrize("name", RESNETS)
def test_parameters_and_arithmetic_are_the_known_ones(name) -> None:
    parameters, gmacs = KNOWN[name]
    network = resnet(name)
    assert network.parameters() == parameters
    assert round(network.macs(224, 224) / 1e9, 3) == gmacs


@pytest.mark.parametrize("name", RESNETS)
def test_the_graph_holds_what_was_counted(name) -> None:
    model = onnx.load_from_string(
        make_model(network=name, classes=1000, in_channels=3, batch=1, size=[64, 64])
    )
    shapes = {weight.name: tuple(weight.dims) for weight in model.graph.initializer}
    weights = sum(int(np.prod(shape)) for shape in shapes.values())
    channels = sum(shape[0] for shape in shapes.values() if len(shape) == 4)
    assert weights + channels == KNOWN[name][0]  # BatchNorm: two for each channel, folded: one


@pytest.mark.parametrize("name", RESNETS)
def test_arithmetic_is_what_the_graph_does(name) -> None:
    network = resnet(name, classes=7, in_channels=2)
    model = onnx.shape_inference.infer_shapes(make_graph(network, 1, 96, 64))
    shapes = {
        value.name: [side.dim_value for side in value.type.tensor_type.shape.dim]
        for value in (*model.graph.value_info, *model.graph.output)
    }
    weights = {weight.name: list(weight.dims) for weight in model.graph.initializer}
    macs = 0
    for node in model.graph.node:
        if node.op_type in ("Conv", "Gemm"):
            each = int(np.prod(weights[node.input[1]]))
            macs += each * int(np.prod(shapes[node.output[0]][2:], initial=1))
    assert network.macs(96, 64) == macs


@pytest.mark.parametrize("bottleneck", [False, True])
@pytest.mark.parametrize("size", [(32, 32), (70, 33)])
def test_the_graph_is_a_resnet(bottleneck, size) -> None:
    network = ResNet(blocks=(1, 2, 1, 1), bottleneck=bottleneck, classes=5, in_channels=2)
    model = make_graph(network, 2, *size)
    onnx.checker.check_model(model)
    image = np.random.default_rng(1).standard_normal((2, 2, *size)).astype(np.float32)
    got = run_once(model.SerializeToString(), {"image": image})["logits"]
    expected = forward(model, image, (1, 2, 1, 1), bottleneck).numpy()
    assert np.abs(got - expected).max() < 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize("name", ["resnet34", "resnet50"])
def test_activations_stay_in_range(name) -> None:
    data = make_model(network=name, classes=10, in_channels=3, batch=1, size=[64, 64])
    image = np.random.default_rng(0).standard_normal((1, 3, 64, 64)).astype(np.float32)
    logits = run_once(data, {"image": image})["logits"]
    assert 0.01 < np.abs(logits).max() < 1000


def test_the_same_weights_every_time() -> None:
    network = ResNet(blocks=(1, 1, 1, 1), bottleneck=False)
    first, again, other = (make_graph(network, 1, 32, 32, seed=seed) for seed in (0, 0, 1))
    assert first.SerializeToString() == again.SerializeToString() != other.SerializeToString()


def test_an_unknown_name() -> None:
    with pytest.raises(SpecError, match="got 'resnet12', expected one of resnet18"):
        resnet("resnet12")


def forward(
    model: onnx.ModelProto, image: np.ndarray, blocks: tuple[int, ...], bottleneck: bool
) -> torch.Tensor:
    """He et al. 2015 by hand, with the weights of the graph by their names."""
    weights = {
        weight.name: torch.from_numpy(numpy_helper.to_array(weight).copy())
        for weight in model.graph.initializer
    }

    def conv(name: str, value: torch.Tensor, stride: int = 1) -> torch.Tensor:
        weight, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
        return functional.conv2d(value, weight, bias, stride, weight.shape[-1] // 2)

    value = functional.relu(conv("stem", torch.from_numpy(image), 2))
    value = functional.max_pool2d(value, 3, 2, 1)
    for stage, count in enumerate(blocks):
        for index in range(count):
            name, stride = f"stage{stage}.{index}", 2 if stage and not index else 1
            shortcut = value
            if f"{name}.projection.weight" in weights:
                shortcut = conv(f"{name}.projection", value, stride)
            if bottleneck:
                value = functional.relu(conv(f"{name}.conv0", value))
                value = functional.relu(conv(f"{name}.conv1", value, stride))
                value = conv(f"{name}.conv2", value)
            else:
                value = functional.relu(conv(f"{name}.conv0", value, stride))
                value = conv(f"{name}.conv1", value)
            value = functional.relu(value + shortcut)
    pooled = value.mean((2, 3))
    return functional.linear(pooled, weights["classifier.weight"], weights["classifier.bias"])
