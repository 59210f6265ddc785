"""What serving_cost.py serves: a model that does nothing, and a network that costs next to nothing.

Both take 1x3x224x224 float32 (602112 bytes) and answer 1000 logits (4000 bytes).
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from parnet_deploy import Runtime
from parnet_deploy.builder.build import BuildOptions, build_to_deployment
from parnet_deploy.deployment import Deployment
from parnet_deploy.input_size import InputSize
from parnet_deploy.spec import ModelSpec
from parnet_deploy.steps import read_reference
from tests.toy_deployments import export_toy

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
    """A deployment whose engine costs little beside a request; one thread."""
    export_toy(directory, SPEC, SIZE)
    build_to_deployment(
        directory, BuildOptions(backend="onnxruntime", placement="one", max_batch=8, threads=1)
    )
    return directory


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
