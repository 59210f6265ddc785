"""Deployments made by hand: weights, plans and reports as steps write them, nothing computed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from parnet_deploy.deployment import Deployment
from parnet_deploy.input_size import InputSize
from parnet_deploy.placement import Placement, one, streams
from parnet_deploy.plan import Plan
from parnet_deploy.spec import ModelSpec
from parnet_deploy.storage.document import seal

SPEC = ModelSpec(planes=(4, 8, 8, 8), num_blocks=(2, 2, 2, 1), num_classes=5)
SIZE = InputSize.parse("64")
PLAN = "onnxruntime-fp32-one"


def check(
    error: float = 1e-6, tolerance: float = 1e-4, *, passed: bool | None = None
) -> dict[str, Any]:
    """A comparison as a report has it."""
    return {
        "what": "part",
        "error": error,
        "tolerance": tolerance,
        "passed": error <= tolerance if passed is None else passed,
    }


def weights(spec: ModelSpec = SPEC) -> dict[str, np.ndarray[Any, Any]]:
    """Fused weights by name; fields with dots, as real ones have."""
    generator = np.random.default_rng(7)
    shapes = {"conv.weight": (2, 3), "conv.bias": (2,), "gate.weight": (4,)}
    found = {
        f"{block.name}.{field}": generator.normal(size=shape).astype(np.float32)
        for block in spec.blocks
        for field, shape in shapes.items()
    }
    return found | {"head.fc.weight": generator.normal(size=(5, 8)).astype(np.float32)}


def make(
    directory: Path,
    *,
    tensors: Mapping[str, np.ndarray[Any, Any]] | None = None,
    reports: Mapping[str, Mapping[str, Any]] | None = None,
    plans: Mapping[str, tuple[Plan, str]] | None = None,
    steps: tuple[str, ...] = (),
    spec: ModelSpec = SPEC,
) -> Deployment:
    """A deployment with fused weights and what else is given.

    Args:
        directory: Where.
        tensors: The fused weights.
        reports: By step (with its target): the content of its report.
        plans: By key: the plan and the step of its graphs.
        steps: Steps without a report.
        spec: The network.
    """
    reports = dict(reports or {})
    with Deployment.edit(directory, create=True) as txn:
        txn.describe(spec=spec, input_size=SIZE)
        txn.stage("fused.safetensors").write_bytes(save(dict(tensors or weights(spec))))
        _write(txn.stage("reports/fuse.json"), reports.pop("fuse", {}))
        txn.finish_step("fuse", key="fuse")
        for step in ("export", *sorted(name for name in reports if name.startswith("quantize:"))):
            if step in reports:
                target = step.partition(":")[2]
                name = f"precision-{target}" if target else step
                _write(txn.stage(f"reports/{name}.json"), reports.pop(step))
            txn.finish_step(step, key=step)
        for key, (plan, source) in (plans or {}).items():
            _write(txn.stage(f"plans/{key}/build.json"), plan.to_json())
            for file in plan.engines.values():
                txn.stage(f"plans/{key}/{file}").write_bytes(f"{key} {file}".encode())
            summary = {"backend": plan.backend, "precision": plan.precision}
            made_from = {"export", source}
            step = f"build:{key}"
            txn.finish_step(step, key=step, made_from=made_from, plans={key: summary})
        for step, report in reports.items():
            _write(txn.stage(f"reports/{step}.json"), report)
            txn.finish_step(step, key=step)
        for step in steps:
            txn.finish_step(step, key=step)
    return Deployment.open(directory)


def plan(backend: str = "onnxruntime", placement: Placement | None = None, **changes: Any) -> Plan:
    """A plan, one engine unless a placement is given."""
    placement = placement or one(SPEC)
    files = {segment.name: f"{segment.name}.onnx" for segment in placement.segments}
    return Plan(
        backend=backend,
        placement=placement,
        input_size=SIZE,
        max_batch=4,
        engines=files,
        **changes,
    )


def on_gpus(**changes: Any) -> Plan:
    """A TensorRT plan on two devices."""
    placement = streams(SPEC, devices=(0, 1))
    layers = {s.name: {"layers": {"float16": 7, "float32": 2}} for s in placement.segments}
    return plan("tensorrt", placement, precision="fp16", made={"engines": layers}, **changes)


def reseal(root: Path, change: Callable[[dict[str, Any]], None]) -> Deployment:
    """The deployment with its manifest changed, sealed anew."""
    path = root / "deployment.json"
    data = json.loads(path.read_bytes())
    del data["sha256"]
    change(data)
    path.write_bytes(seal(data))
    return Deployment.open(root)


def copy(deployment: Deployment, target: Path) -> Deployment:
    """The same at another place."""
    shutil.copytree(deployment.path, target)
    return Deployment.open(target)


def damage(deployment: Deployment, name: str) -> None:
    """Change one byte of a file."""
    path = deployment.path / name
    data = bytearray(path.read_bytes())
    data[-2] ^= 1
    path.write_bytes(data)


def _write(path: Path, data: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(data), encoding="utf-8")


def mixed(**changes: Any) -> Plan:
    """A plan whose streams run on openvino and whose rest runs on onnxruntime."""
    placement = streams(SPEC)
    names = [segment.name for segment in placement.segments]
    homes = {name: "openvino" if name.startswith("stream") else "onnxruntime" for name in names}
    made = {
        name: {"converter": {"openvino": "2026.4.1-build"}} if home == "openvino" else {}
        for name, home in homes.items()
    }
    return plan("mixed", placement, backends=homes, made={"engines": made}, **changes)
