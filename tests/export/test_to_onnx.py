"""One ONNX graph per part: valid, named, deterministic, and the same answer on ONNX Runtime."""

from __future__ import annotations

from collections import Counter
from functools import cache

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto
from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument

from parnet_deploy.builder.onnx_merge import merge_segment
from parnet_deploy.compare import ENGINE_TOLERANCE, compare
from parnet_deploy.errors import EngineLoadError
from parnet_deploy.export.fuse import FusedNetwork, fuse_network, run_network
from parnet_deploy.export.to_onnx import IR_VERSION, OPSET, part_to_onnx
from parnet_deploy.input_size import InputSize
from parnet_deploy.placement import one
from parnet_deploy.runtime.onnxruntime.cpu import run_once
from parnet_deploy.spec import IMAGE, LOGITS, ModelSpec
from tests.networks import SPEC, SPECS, random_image, random_state

KNOWN = {  # what ONNX Runtime, TensorRT 8.6 and MNN all have
    "Add", "Concat", "ConstantOfShape", "Conv", "Flatten", "Gather", "Gemm", "GlobalAveragePool",
    "Identity", "Mul", "Relu", "Shape", "Sigmoid",
}  # fmt: skip
FIXED, RANGED = "fixed", "ranged"


def size_of(spec: ModelSpec, kind: str) -> InputSize:
    """One size that is not square, or a range from the smallest to three times that."""
    side = spec.size_multiple
    if kind == FIXED:
        return InputSize(low=(side, 2 * side), high=(side, 2 * side))
    return InputSize(low=(side, side), high=(3 * side, 3 * side))


@cache
def fused(name: str) -> FusedNetwork:
    return fuse_network(random_state(SPECS[name]), SPECS[name])


@cache
def graphs(name: str, kind: str) -> dict[str, onnx.ModelProto]:
    network = fused(name)
    size = size_of(network.spec, kind)
    return {part.name: part_to_onnx(network, part, size) for part in network.spec.parts}


@pytest.mark.parametrize("kind", [FIXED, RANGED])
@pytest.mark.parametrize("name", SPECS)
class TestEveryGraph:
    def test_is_valid(self, name: str, kind: str) -> None:
        for model in graphs(name, kind).values():
            onnx.checker.check_model(model, full_check=True)
            opsets = [(entry.domain, entry.version) for entry in model.opset_import]
            assert opsets == [("", OPSET)] == [("", 17)]
            assert model.ir_version == IR_VERSION == 8

    def test_has_known_operators_and_no_batch_norm(self, name: str, kind: str) -> None:
        kinds = Counter(n.op_type for m in graphs(name, kind).values() for n in m.graph.node)
        assert set(kinds) <= KNOWN
        assert kinds["BatchNormalization"] == 0
        empty = sum(not part.blocks for part in SPECS[name].parts)
        assert kinds["Identity"] == empty  # only a stream without a block

    def test_names_begin_with_their_block_and_are_unique(self, name: str, kind: str) -> None:
        spec = SPECS[name]
        nodes, weights = [], []
        for part in spec.parts:
            graph = graphs(name, kind)[part.name].graph
            allowed = tuple(f"{owner}{end}" for owner in [part.name, *(b.name for b in part.blocks)]
                            for end in "/.")  # fmt: skip
            assert all(node.name.startswith(allowed) for node in graph.node), part.name
            assert all(weight.name.startswith(allowed) for weight in graph.initializer), part.name
            nodes += [node.name for node in graph.node]
            weights += [weight.name for weight in graph.initializer]
        assert len(set(nodes)) == len(nodes)
        assert len(set(weights)) == len(weights)

    def test_declares_the_tensors_of_the_specification(self, name: str, kind: str) -> None:
        spec, size = SPECS[name], size_of(SPECS[name], kind)
        for part in spec.parts:
            graph = graphs(name, kind)[part.name].graph
            assert [value.name for value in graph.input] == list(part.inputs)
            assert [value.name for value in graph.output] == [part.output]
            for value in (*graph.input, *graph.output):
                tensor = value.type.tensor_type
                assert tensor.elem_type == TensorProto.FLOAT
                dims = [dim.dim_param or dim.dim_value for dim in tensor.shape.dim]
                expected: list[int | str] = ["batch", *spec.tensors[value.name].shape(*size.high)]
                if kind == RANGED and len(dims) == 4:
                    expected[2:] = [f"{value.name}_height", f"{value.name}_width"]
                assert dims == expected

    def test_is_the_same_every_time(self, name: str, kind: str) -> None:
        size = size_of(SPECS[name], kind)
        network = fuse_network(random_state(SPECS[name]), SPECS[name])
        for part in network.spec.parts:
            again = part_to_onnx(network, part, size).SerializeToString(deterministic=True)
            assert again == graphs(name, kind)[part.name].SerializeToString(deterministic=True)

    def test_gives_the_answer_of_torch(self, name: str, kind: str) -> None:
        """Each part by itself and the chain, for two batches and the ends of a range."""
        spec, size = SPECS[name], size_of(SPECS[name], kind)
        data = {key: model.SerializeToString() for key, model in graphs(name, kind).items()}
        for batch, (height, width) in ((1, size.low), (3, size.high)):
            image = random_image(spec, batch, height, width)
            with torch.inference_mode():
                values = {k: v.numpy() for k, v in run_network(fused(name), image).items()}
            chain = {IMAGE: values[IMAGE]}
            for part in spec.parts:
                feeds = {tensor: values[tensor] for tensor in part.inputs}
                got = run_once(data[part.name], feeds)[part.output]
                assert got.dtype == np.float32
                what = f"{part.name}, batch {batch}"
                reference = values[part.output]
                compare(got, reference, tolerance=ENGINE_TOLERANCE, what=what).require()
                chain |= run_once(data[part.name], {t: chain[t] for t in part.inputs})
            compare(chain[LOGITS], values[LOGITS], tolerance=ENGINE_TOLERANCE).require()

    def test_merges_into_the_whole_network(self, name: str, kind: str) -> None:
        spec, size = SPECS[name], size_of(SPECS[name], kind)
        model = merge_segment(one(spec).segments[0], spec, graphs(name, kind))
        image = random_image(spec, 2, *size.low)
        with torch.inference_mode():
            reference = run_network(fused(name), image)[LOGITS].numpy()
        got = run_once(model.SerializeToString(), {IMAGE: image.numpy()})[LOGITS]
        compare(got, reference, tolerance=ENGINE_TOLERANCE).require()


def test_parity_is_not_by_luck() -> None:
    """One weight off by a percent is seen, so the comparison above can fail."""
    model = onnx.ModelProto()
    model.CopyFrom(graphs("three", FIXED)["head"])
    weight = next(w for w in model.graph.initializer if w.name == "head.fc.weight")
    values = 1.01 * onnx.numpy_helper.to_array(weight)
    weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    spec, size = SPECS["three"], size_of(SPECS["three"], FIXED)
    with torch.inference_mode():
        values_torch = run_network(fused("three"), random_image(spec, 1, *size.low))
    feeds = {name: values_torch[name].numpy() for name in ("y2", "d1")}
    got = run_once(model.SerializeToString(), feeds)[LOGITS]
    assert not compare(got, values_torch[LOGITS].numpy(), tolerance=ENGINE_TOLERANCE)


def test_fixed_size_is_fixed() -> None:
    """Its bias map belongs to one size: another must not run silently."""
    data = graphs("three", FIXED)["stem0"].SerializeToString()
    with pytest.raises(InvalidArgument, match="dimension"):
        run_once(data, {IMAGE: random_image(SPEC).numpy()})


def test_bias_map_is_a_constant_only_at_a_fixed_size() -> None:
    def names(kind: str) -> set[str]:
        return {w.name for m in graphs("three", kind).values() for w in m.graph.initializer}

    assert "combine.2.bias_map" in names(FIXED) - names(RANGED)
    assert "combine.2.border.weight" in names(RANGED) - names(FIXED)


def test_weights_are_those_of_the_fused_network() -> None:
    tensors = fused("three").tensors
    for model in graphs("three", RANGED).values():
        for weight in model.graph.initializer:
            if weight.name in tensors:
                value = onnx.numpy_helper.to_array(weight).reshape(tensors[weight.name].shape)
                assert np.array_equal(value, tensors[weight.name].numpy()), weight.name


def test_errors_of_onnxruntime_are_ours() -> None:
    with pytest.raises(EngineLoadError, match="ONNX Runtime cannot load it"):
        run_once(b"not a model", {})
