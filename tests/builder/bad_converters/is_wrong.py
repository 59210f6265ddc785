"""A converter that changes the answer: one weight of the network is another."""

import numpy as np
import onnx

from parnet_deploy.builder.convert import to_openvino


def convert(graph, output, *, precision):
    model = onnx.load(graph)
    weight = next(w for w in model.graph.initializer if w.name == "head.fc.bias")
    values = onnx.numpy_helper.to_array(weight) + np.float32(0.5)
    weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    onnx.save(model, graph)
    return to_openvino.convert(graph, output, precision=precision)
