"""Exported deployments of toy networks, made with numpy and onnx alone (no torch, no checkpoint).

A GPU machine may have little more than TensorRT; so the tests that run there need nothing else.
"""

from __future__ import annotations

from pathlib import Path

from parnet_deploy.deployment import Deployment, step_key
from parnet_deploy.input_size import InputSize
from parnet_deploy.placement import Segment
from parnet_deploy.reference import REFERENCE, Reference, random_image
from parnet_deploy.spec import ModelSpec
from tests.runtime.runtime_toys import onnx_segment, reference


def export_toy(directory: Path, spec: ModelSpec, size: InputSize) -> Path:
    """What ``fuse`` and ``export`` leave behind, as far as ``build`` needs it."""
    with Deployment.edit(directory, create=True) as txn:
        txn.describe(spec=spec, input_size=size)
        for part in spec.parts:
            segment = Segment(
                name=part.name, parts=(part.name,), inputs=part.inputs, outputs=(part.output,)
            )
            model = onnx_segment(spec, segment, size)
            data = model.SerializeToString(deterministic=True)
            txn.stage(f"onnx/{part.name}.onnx").write_bytes(data)
        image = random_image(spec, *size.high)
        packed = Reference(image=image, logits=reference(spec, image)).pack()
        txn.stage(REFERENCE).write_bytes(packed)
        txn.finish_step("export", key=step_key(toy=spec.to_json(), size=size.to_json()))
    return directory
