"""What serving_cost.py serves: a model that does nothing, and a network that costs next to nothing.

Both take 1x3x224x224 float32 (602112 bytes) and answer 1000 logits (4000 bytes).
"""

from __future__ import annotations

import time
import zlib
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from parnet_deploy import Runtime
from parnet_deploy.builder.build import BuildOptions, build_to_deployment
from parnet_deploy.deployment import Deployment, step_key
from parnet_deploy.input_size import InputSize
from parnet_deploy.reference import REFERENCE, Reference, random_image
from parnet_deploy.spec import LOGITS, ModelSpec, PartSpec
from parnet_deploy.steps import read_reference

SPEC = ModelSpec(planes=(2, 4, 6), num_blocks=(2, 2, 1), num_classes=1000)
SIZE = InputSize(low=(224, 224), high=(224, 224))
NO_OP = "no-op"

_CONFIG = """\
name: "no-op"
backend: "python"
max_batch_size: 0
input { name: "image" data_type: TYPE_FP32 dims: [1, 3, 224, 224] }
output { name: "logits" data_type: TYPE_FP32 dims: [1, 1000] }
instance_group { count: 1 kind: KIND_CPU }
"""
_MODEL = '''\
"""The least that Triton's python backend can do: one array answers everything."""

import numpy as np
import triton_python_backend_utils as utils

LOGITS = np.zeros((1, 1000), np.float32)


class TritonPythonModel:
    def execute(self, requests):
        for request in requests:
            utils.get_input_tensor_by_name(request, "image").as_numpy()
        tensor = utils.Tensor("logits", LOGITS)
        return [utils.InferenceResponse(output_tensors=[tensor]) for _ in requests]
'''


def write_no_op(repository: Path) -> None:
    """A model of Triton's python backend that computes nothing."""
    version = repository / NO_OP / "1"
    version.mkdir(parents=True)
    (repository / NO_OP / "config.pbtxt").write_text(_CONFIG, encoding="utf-8")
    (version / "model.py").write_text(_MODEL, encoding="utf-8")


def make_small(directory: Path) -> Path:
    """A deployment whose engine costs little beside a request; one thread.

    Each part mixes the channels of every second pixel (or fourth, ...) of its inputs; the head
    those of their means.
    """
    image = random_image(SPEC, *SIZE.high)
    with Deployment.edit(directory, create=True) as txn:
        txn.describe(spec=SPEC, input_size=SIZE)
        for part in SPEC.parts:
            data = _graph(part).SerializeToString(deterministic=True)
            txn.stage(f"onnx/{part.name}.onnx").write_bytes(data)
        txn.stage(REFERENCE).write_bytes(Reference(image=image, logits=_logits(image)).pack())
        txn.finish_step("export", key=step_key(small=SPEC.to_json()))
    build_to_deployment(
        directory, BuildOptions(backend="onnxruntime", placement="one", max_batch=8, threads=1)
    )
    return directory


def _weight(part: PartSpec, source: str) -> NDArray[np.float32]:
    """(O, I) of one part for one of its inputs."""
    generator = np.random.default_rng(zlib.crc32(f"{part.name}/{source}".encode()))
    shape = (SPEC.tensors[part.output].channels, SPEC.tensors[source].channels)
    return generator.standard_normal(shape).astype(np.float32)


def _step(part: PartSpec) -> int:
    """Every how manieth pixel a part reads."""
    after = SPEC.tensors[part.output].level
    before = SPEC.tensors[part.inputs[0]].level
    return 1 if after is None or before is None else 2 ** (after - before)


def _logits(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """The same as the graphs, in numpy."""
    tensors = {"image": image}
    for part in SPEC.parts:
        step, total = _step(part), np.float32(0)
        for name in part.inputs:
            x = tensors[name][:, :, ::step, ::step]
            x = x.mean(axis=(2, 3), keepdims=True) if part.output == LOGITS else x
            total = total + np.einsum("oi,nihw->nohw", _weight(part, name), x)
        tensors[part.output] = total
    found: NDArray[np.float32] = tensors[LOGITS][:, :, 0, 0]
    return found


def _graph(part: PartSpec) -> onnx.ModelProto:
    step, nodes, weights, terms = _step(part), [], [], []
    for name, values in (("starts", [0, 0]), ("ends", [2**31] * 2), ("axes", [2, 3])):
        weights.append(numpy_helper.from_array(np.array(values, np.int64), f"{part.name}/{name}"))
    weights.append(numpy_helper.from_array(np.array([step] * 2, np.int64), f"{part.name}/steps"))
    for name in part.inputs:
        at, read = f"{part.name}/{name}", name
        if step > 1:
            window = [f"{part.name}/{what}" for what in ("starts", "ends", "axes", "steps")]
            nodes.append(helper.make_node("Slice", [read, *window], [f"{at}/s"]))
            read = f"{at}/s"
        if part.output == LOGITS:
            nodes.append(helper.make_node("GlobalAveragePool", [read], [f"{at}/m"]))
            read = f"{at}/m"
        weights.append(numpy_helper.from_array(_weight(part, name)[:, :, None, None], f"{at}/w"))
        nodes.append(helper.make_node("Conv", [read, f"{at}/w"], [f"{at}/c"]))
        terms.append(f"{at}/c")
    mixed = f"{part.name}/sum" if part.output == LOGITS else part.output
    nodes.append(helper.make_node("Sum", terms, [mixed]))
    if part.output == LOGITS:
        nodes.append(helper.make_node("Flatten", [mixed], [LOGITS], axis=1))
    used = {name for node in nodes for name in node.input}
    inputs, outputs = ([_info(name) for name in names] for names in (part.inputs, [part.output]))
    kept = [weight for weight in weights if weight.name in used]
    graph = helper.make_graph(nodes, part.name, inputs, outputs, kept)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.checker.check_model(model)
    return model


def _info(name: str) -> onnx.ValueInfoProto:
    shape = ["batch", *SPEC.tensors[name].shape(*SIZE.high)]
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def write_arrays(directory: Path, folder: Path) -> dict[str, Path]:
    """Input, the reference's logits and the no-op's, as files for the client."""
    reference = read_reference(Deployment.open(directory))
    arrays = {
        "input": reference.image,
        "logits": reference.logits,
        "zeros": np.zeros((1, 1000), np.float32),
    }
    paths = {name: folder / f"{name}.npy" for name in arrays}
    for name, array in arrays.items():
        np.save(paths[name], array)
    return paths


def engine_cpu_ms(directory: Path, calls: int = 500) -> float:
    """CPU time of the runtime alone for one image, median of ten blocks, in this process."""
    image = read_reference(Deployment.open(directory)).image
    blocks = []
    with Runtime.open(directory) as runtime:
        for _ in range(10):
            start = time.process_time()
            for _ in range(calls // 10):
                runtime(image)
            blocks.append((time.process_time() - start) * 1e3 / (calls // 10))
    return float(np.median(blocks))
