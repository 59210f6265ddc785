from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from parnet_deploy.builder.onnx_merge import merge_segment
from parnet_deploy.placement import one
from parnet_deploy.quantize.chain import ChainOptions, PartChain, element_types
from parnet_deploy.quantize.fp16 import cast_to_half, unfit_layers
from parnet_deploy.quantize.metrics import sqnr_db
from parnet_deploy.spec import IMAGE, LOGITS
from tests.networks import SPECS
from tests.quantize.networks import by_output, constants, exported


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("dynamic", [False, True])
def test_the_answer_is_close_and_not_the_same(name, dynamic) -> None:
    made = exported(name, dynamic)
    graphs = {k: cast_to_half(model) for k, model in made.graphs.items()}
    reference = made.full.logits(made.images)
    got = PartChain(made.spec, graphs, ChainOptions(emulate=True)).logits(made.images)
    assert 45 < sqnr_db(got, reference) < 100


def test_everything_inside_is_half_and_the_borders_are_not() -> None:
    for part, model in exported("three").graphs.items():
        half = cast_to_half(model)
        for value in (*half.graph.input, *half.graph.output):
            assert value.type.tensor_type.elem_type == TensorProto.FLOAT
        kinds = element_types(half)
        outputs = {value.name for value in half.graph.output}
        assert {kind for name, kind in kinds.items() if name not in outputs} == {
            TensorProto.FLOAT16
        }, part
        assert all(v.dtype != np.float32 for v in constants(half).values())


def test_a_kept_layer_computes_in_float32_between_casts() -> None:
    model = cast_to_half(exported("three").graphs["stream1"], keep=["streams.1.1"])
    kinds, source = element_types(model), by_output(model)
    values = constants(model)
    for node in model.graph.node:
        if node.name.startswith("streams.1.1/") and node.op_type != "Cast":
            output = node.output[0]
            assert kinds[output] == TensorProto.FLOAT
            assert all(values[n].dtype == np.float32 for n in node.input if n in values)
    conv = source["streams.1.1/conv"]
    assert source[conv.input[0]].op_type == "Cast"
    assert values["streams.1.0.conv.weight/half"].dtype == np.float16


def test_merged_parts_have_no_name_twice_and_run() -> None:
    made = exported("three")
    graphs = {k: cast_to_half(model) for k, model in made.graphs.items()}
    merged = merge_segment(one(made.spec).segments[0], made.spec, graphs)
    onnx.checker.check_model(merged, full_check=True)
    names = [node.name for node in merged.graph.node]
    assert len(names) == len(set(names))
    from parnet_deploy.runtime.onnxruntime.cpu import run_once

    got = run_once(merged.SerializeToString(), {IMAGE: made.images})[LOGITS]
    expected = PartChain(made.spec, graphs).logits(made.images)
    assert sqnr_db(got, expected) > 50


def test_a_weight_that_overflows_keeps_its_layer_in_float32() -> None:
    made = exported("three")
    model = onnx.ModelProto()
    model.CopyFrom(made.graphs["stream1"])
    weight = next(w for w in model.graph.initializer if w.name == "streams.1.1.conv.weight")
    value = onnx.numpy_helper.to_array(weight).copy()
    value[0, 0, 0, 0] = 7e4
    weight.CopyFrom(onnx.numpy_helper.from_array(value, weight.name))
    found = unfit_layers(model, made.ranges)
    assert found == {"streams.1.1": "streams.1.1.conv.weight holds 7e+04"}
    half = cast_to_half(model, keep=found)
    assert all(np.isfinite(v).all() for v in constants(half).values())


def test_an_activation_near_the_limit_keeps_its_readers_in_float32_too() -> None:
    made = exported("three")
    large = replace(made.ranges["streams.1.0/silu"], max=9000.0)
    found = unfit_layers(made.graphs["stream1"], made.ranges | {"streams.1.0/silu": large})
    assert set(found) == {"streams.1.0", "streams.1.1"}


def test_nothing_is_kept_where_everything_fits() -> None:
    made = exported("three")
    assert [unfit_layers(model, made.ranges) for model in made.graphs.values()] == [{}] * 9
