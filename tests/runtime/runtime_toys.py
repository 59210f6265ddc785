"""Small networks, kernels and placements for the tests of the runtime."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from parnet_deploy.input_size import InputSize
from parnet_deploy.placement import (
    Placement,
    Segment,
    check_placement,
    one,
    recompute,
    streams,
)
from parnet_deploy.plan import Plan
from parnet_deploy.runtime.executor import Executor
from parnet_deploy.runtime.fake.backend import FakeBackend
from parnet_deploy.runtime.fake.options import FakeOptions
from parnet_deploy.spec import IMAGE, LOGITS, ModelSpec, PartSpec

Array = NDArray[np.float32]

SPECS = {
    2: ModelSpec(planes=(2, 4, 6), num_blocks=(2, 2, 1), num_classes=3),
    3: ModelSpec(planes=(2, 4, 2, 6), num_blocks=(2, 1, 3, 1), num_classes=4),
    4: ModelSpec(planes=(2, 2, 4, 2, 6), num_blocks=(1, 2, 2, 1, 1), num_classes=5),
}


def fixed_size(spec: ModelSpec, times: int = 1) -> InputSize:
    side = spec.size_multiple * times
    return InputSize(low=(side, side), high=(side, side))


def images(spec: ModelSpec, batch: int = 1, seed: int = 0, size: tuple[int, int] | None = None):
    height, width = size or fixed_size(spec).low
    rng = np.random.default_rng(seed)
    return rng.standard_normal((batch, 3, height, width)).astype(np.float32)


def weight(spec: ModelSpec, part: PartSpec, source: str) -> Array:
    tensors = spec.tensors
    rng = np.random.default_rng(zlib.crc32(f"{part.name}/{source}".encode()))
    shape = (tensors[part.output].channels, tensors[source].channels)
    return rng.standard_normal(shape).astype(np.float32)


def levels(spec: ModelSpec, part: PartSpec) -> int:
    """How many times a part halves its input; the head averages over everything instead."""
    tensors = spec.tensors
    level = tensors[part.output].level
    return 0 if level is None else level - tensors[part.inputs[0]].level


def part_kernel(spec: ModelSpec, part: PartSpec, inputs: Mapping[str, Array]) -> Array:
    """tanh of pooled and mixed inputs: cheap, and any wrong element changes the logits."""
    step = 2 ** levels(spec, part)
    total: Array = np.float32(0)
    for name in part.inputs:
        x = inputs[name]
        n, c, h, w = x.shape
        pooled = x.reshape(n, c, h // step, step, w // step, step).mean(axis=(3, 5))
        total = total + np.einsum("oc,nchw->nohw", weight(spec, part, name), pooled)
    result = np.tanh(total)
    return result.mean(axis=(2, 3)) if part.output == LOGITS else result


def segment_kernel(spec: ModelSpec) -> Callable[[Segment], Callable[[Mapping], Mapping]]:
    parts = {part.name: part for part in spec.parts}

    def for_segment(segment: Segment):
        def run(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
            values = {name: np.array(inputs[name]) for name in segment.inputs}
            for part in spec.parts:
                if part.name in segment.parts:
                    values[part.output] = part_kernel(spec, parts[part.name], values)
            return {name: values[name] for name in segment.outputs}

        return run

    return for_segment


def reference(spec: ModelSpec, x: Array) -> Array:
    """All parts, one after the other."""
    values = {IMAGE: x}
    for part in spec.parts:
        values[part.output] = part_kernel(spec, part, values)
    return values[LOGITS]


def make_segment(
    spec: ModelSpec, name: str, parts: Sequence[str], device: int = 0, lane: int = 0
) -> Segment:
    inside = [part for part in spec.parts if part.name in parts]
    made = {part.output for part in inside}
    inputs = {name for part in inside for name in part.inputs} - made
    outside = {name for part in spec.parts if part not in inside for name in part.inputs}
    return Segment(
        name=name,
        parts=tuple(part.name for part in inside),
        inputs=tuple(sorted(inputs)),
        outputs=tuple(part.output for part in inside if part.output in outside | {LOGITS}),
        device=device,
        lane=lane,
    )


def random_placement(
    spec: ModelSpec, rng: random.Random, devices: int, lanes: int, again: float = 0.0
) -> Placement:
    """Any cut of any order of the parts, anywhere; ``again`` is how often a part is recomputed."""
    waiting, done, order = list(spec.parts), {IMAGE}, []
    while waiting:
        part = rng.choice([p for p in waiting if set(p.inputs) <= done])
        waiting.remove(part)
        done.add(part.output)
        order.append(part.name)
    segments = []
    while order:
        size = rng.randint(1, 3)
        names, order = order[:size], order[size:]
        where = {"device": rng.randrange(devices), "lane": rng.randrange(lanes)}
        segments.append(make_segment(spec, f"seg{len(segments)}", names, **where))
    segments = recompute_some(spec, segments, rng, again)
    placement = Placement(name="random", segments=tuple(segments))
    check_placement(placement, spec)
    return placement


def recompute_some(
    spec: ModelSpec, segments: Sequence[Segment], rng: random.Random, again: float
) -> list[Segment]:
    """The same segments, but some of what they would read they compute by themselves."""
    makers = {part.output: part for part in spec.parts}
    changed = []
    for segment in segments:
        inputs, parts = set(segment.inputs), set(segment.parts)
        for start in segment.inputs:
            name = start
            while name in makers and name in inputs and rng.random() < again:
                parts.add(makers[name].name)
                inputs = (inputs | set(makers[name].inputs)) - {name}
                name = makers[name].inputs[0]
        inside = [part for part in spec.parts if part.name in parts]
        inputs -= {part.output for part in inside}
        names = tuple(part.name for part in inside)
        changed.append(replace(segment, parts=names, inputs=tuple(sorted(inputs))))
    read = {name for segment in changed for name in segment.inputs}
    return [  # a tensor is published by the segment that had its part from the beginning
        replace(
            new,
            outputs=tuple(
                p.output
                for p in spec.parts
                if p.name in old.parts and p.output in {*read, *old.outputs}
            ),
        )
        for new, old in zip(changed, segments, strict=True)
    ]


PLACEMENTS: dict[str, Callable[[ModelSpec], Placement]] = {
    "one": one,
    "streams on one device": streams,
    "streams on two devices": lambda spec: streams(spec, (0, 1)),
    "streams on three devices": lambda spec: streams(spec, (0, 1, 2)),
    "recomputed on one device": recompute,
    "recomputed on three devices": lambda spec: recompute(spec, (0, 1, 2)),
}


def make_plan(placement: Placement, size: InputSize, max_batch: int = 1, **more) -> Plan:
    return Plan(
        backend=more.pop("backend", "onnxruntime"),
        placement=placement,
        input_size=size,
        max_batch=max_batch,
        engines={segment.name: f"{segment.name}.onnx" for segment in placement.segments},
        **more,
    )


def fake_executor(
    spec: ModelSpec,
    placement: Placement,
    options: FakeOptions | None = None,
    *,
    max_batch: int = 1,
    slots: int = 1,
    size: InputSize | None = None,
    program=None,
) -> Executor:
    plan = make_plan(placement, size or fixed_size(spec), max_batch, backend="fake")
    loaded = FakeBackend(options, segment_kernel(spec)).load(spec, plan, {})
    return Executor(
        spec=spec,
        placement=placement,
        devices=loaded.devices,
        engines=loaded.engines,
        input_size=plan.input_size,
        max_batch=max_batch,
        slots=slots,
        program=program,
    )


def run(executor: Executor, spec: ModelSpec, x: Array) -> Array:
    """One call, into logits that were NaN before."""
    logits = np.full((len(x), spec.num_classes), np.nan, dtype=np.float32)
    executor.run(x.ctypes.data, logits.ctypes.data, (len(x), *x.shape[2:]))
    return logits


def onnx_segment(spec: ModelSpec, segment: Segment, size: InputSize) -> onnx.ModelProto:
    """The same as ``segment_kernel``, as an ONNX model."""
    nodes, initializers = [], []
    for part in spec.parts:
        if part.name in segment.parts:
            nodes += _part_nodes(spec, part, initializers)

    def info(name: str):
        dims = list(spec.tensors[name].shape(*size.high))
        if not size.fixed and len(dims) == 3:
            dims[1:] = [f"{name}_h", f"{name}_w"]
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *dims])

    graph = helper.make_graph(
        nodes,
        segment.name,
        [info(name) for name in segment.inputs],
        [info(name) for name in segment.outputs],
        initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.checker.check_model(model)
    return model


def _part_nodes(spec: ModelSpec, part: PartSpec, initializers: list) -> Iterable:
    step, terms = 2 ** levels(spec, part), []
    for name in part.inputs:
        at = f"{part.name}/{name}"
        matrix = weight(spec, part, name)[:, :, None, None]
        initializers.append(numpy_helper.from_array(matrix, f"{at}/w"))
        shape = {"kernel_shape": [step, step], "strides": [step, step]}
        yield helper.make_node("AveragePool", [name], [f"{at}/p"], **shape)
        yield helper.make_node("Conv", [f"{at}/p", f"{at}/w"], [f"{at}/c"])
        terms.append(f"{at}/c")
    out, total = part.output, terms[0]
    if len(terms) > 1:  # the sum of one is legal, and ends MNN's converter
        total = f"{out}/sum"
        yield helper.make_node("Sum", terms, [total])
    if out == LOGITS:
        yield helper.make_node("Tanh", [total], [f"{out}/tanh"])
        yield helper.make_node("GlobalAveragePool", [f"{out}/tanh"], [f"{out}/gap"])
        yield helper.make_node("Flatten", [f"{out}/gap"], [out], axis=1)
    else:
        yield helper.make_node("Tanh", [total], [out])


def write_engines(spec: ModelSpec, plan: Plan, folder: Path) -> dict[str, Path]:
    """The ONNX file of every segment; returns where they are."""
    files = {}
    for segment in plan.placement.segments:
        files[segment.name] = folder / plan.engines[segment.name]
        onnx.save(onnx_segment(spec, segment, plan.input_size), files[segment.name])
    return files
