"""Engine files of OpenVINO for the toy networks."""

from __future__ import annotations

from pathlib import Path

import onnx

from parnet_deploy.builder.convert.to_openvino import convert
from parnet_deploy.placement import Placement
from parnet_deploy.plan import Plan
from parnet_deploy.runtime.executor import Executor
from parnet_deploy.runtime.openvino.backend import OpenVinoBackend
from parnet_deploy.spec import ModelSpec
from tests.runtime.runtime_toys import make_plan, onnx_segment


def openvino_plan(placement: Placement, size, max_batch: int = 1, **more) -> Plan:
    return make_plan(placement, size, max_batch, backend="openvino", **more)


def write_model(model: onnx.ModelProto, path: Path) -> Path:
    source = path.with_suffix(".onnx")
    onnx.save(model, source)
    convert(source, path, precision="fp32")
    return path


def write_openvino(spec: ModelSpec, plan: Plan, folder: Path) -> dict[str, Path]:
    """The engine file of every segment; returns where they are."""
    return {
        segment.name: write_model(
            onnx_segment(spec, segment, plan.input_size), folder / f"{segment.name}.openvino"
        )
        for segment in plan.placement.segments
    }


def open_executor(spec: ModelSpec, plan: Plan, files, slots: int = 1) -> Executor:
    loaded = OpenVinoBackend().load(spec, plan, files)
    return Executor(
        spec=spec,
        placement=plan.placement,
        devices=loaded.devices,
        engines=loaded.engines,
        input_size=plan.input_size,
        max_batch=plan.max_batch,
        slots=slots,
    )
