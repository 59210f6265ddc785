"""Run an ONNX graph through the ncnn writer and ncnn itself, and through ONNX Runtime."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from parnet_deploy.builder.convert.to_ncnn import convert
from parnet_deploy.placement import Segment
from parnet_deploy.runtime.device import Tensor
from parnet_deploy.runtime.host import HostDevice
from parnet_deploy.runtime.ncnn import NcnnEngine, open_net
from parnet_deploy.runtime.ncnn_file import unpack_model
from parnet_deploy.runtime.onnxruntime.cpu import run_once


def graph_of(nodes, inputs, outputs, constants=None, opset: int = 17) -> onnx.ModelProto:
    """A model; ``inputs`` are shapes without the batch, ``outputs`` names and ranks."""
    graph = helper.make_graph(
        nodes,
        "toy",
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *dims])
            for name, dims in inputs.items()
        ],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * rank)
            for name, rank in outputs.items()
        ],
        [numpy_helper.from_array(value, name) for name, value in (constants or {}).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    model.ir_version = 8
    onnx.checker.check_model(model)
    return model


def engine_bytes(model: onnx.ModelProto) -> bytes:
    """The engine file of a graph."""
    with tempfile.TemporaryDirectory() as folder:
        source, made = Path(folder) / "graph.onnx", Path(folder) / "made.ncnn"
        onnx.save(model, source)
        convert(source, made, precision="fp32")
        return made.read_bytes()


def run_engine(data: bytes, feeds, shapes):
    """Run an engine on buffers of the host; ``shapes`` are those of the outputs."""
    segment = Segment(name="toy", parts=("toy",), inputs=tuple(feeds), outputs=tuple(shapes))
    model = unpack_model(data, "toy")
    engine = NcnnEngine(segment, open_net(model, "toy", threads=1), model.overwritten())
    device = HostDevice()
    tensors, views = {}, {}
    for name, shape in {**{n: x.shape for n, x in feeds.items()}, **shapes}.items():
        buffer = device.allocate(4 * int(np.prod(shape)))
        tensors[name] = Tensor(buffer=buffer, shape=tuple(shape))
        start = buffer.address - buffer._memory.ctypes.data
        views[name] = buffer._memory[start : start + buffer.nbytes].view(np.float32).reshape(shape)
    for name, x in feeds.items():
        views[name][:] = x
    binding = engine.bind(tensors, 0)
    binding.run()
    binding.close()
    engine.close()
    for name, x in feeds.items():
        np.testing.assert_array_equal(views[name], x)  # it writes its outputs only
    return {name: views[name].copy() for name in shapes}


def check_against_onnxruntime(model: onnx.ModelProto, feeds, tolerance: float = 1e-5) -> None:
    """Same answers, to a share of the largest."""
    expected = run_once(model.SerializeToString(), feeds)
    shapes = {name: value.shape for name, value in expected.items()}
    found = run_engine(engine_bytes(model), feeds, shapes)
    for name, want in expected.items():
        limit = tolerance * max(1e-3, float(np.abs(want).max()))
        np.testing.assert_allclose(found[name], want, rtol=0, atol=limit, err_msg=name)
