"""A small deployment in two states, old and new, that differ in every way a commit can change."""

from __future__ import annotations

from pathlib import Path

from parnet_deploy.deployment import Deployment, step_key
from parnet_deploy.spec import ModelSpec

SPEC = ModelSpec(planes=(4, 8, 16, 32), num_blocks=(2, 2, 2, 1), num_classes=3)

OLD = {
    "fused.safetensors": b"old weights",
    "onnx/stem0.onnx": b"old stem",
    "onnx/deep/er/head.onnx": b"in a directory where the new one has a file",
    "plans": b"a file where the new one has a directory",
}
NEW = {
    "fused.safetensors": b"new weights",
    "onnx/stem0.onnx": b"new stem",
    "onnx/deep": b"a file",
    "plans/one-cpu/all.onnx": b"a plan",
}


def write_state(path: Path, files: dict[str, bytes]) -> None:
    """Write a deployment that holds exactly these files."""
    with Deployment.edit(path, create=True) as txn:
        txn.describe(spec=SPEC, source={"weights": "ema"}, labels=["a", "b", "c"])
        for name, content in files.items():
            txn.stage(name).write_bytes(content)
        txn.finish_step("fuse", key=step_key(files=sorted(files)))


def content(deployment: Deployment) -> dict[str, bytes]:
    """Everything in it, checked."""
    return {name: deployment.read_bytes(name) for name in deployment.artifacts}
