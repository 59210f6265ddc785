"""The graph for ONNX Runtime: what is 8-bit, what is not, and that the kernels do what it says."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from parnet_deploy.builder.onnx_merge import merge_segment
from parnet_deploy.placement import one
from parnet_deploy.quantize.chain import ChainOptions, PartChain
from parnet_deploy.quantize.metrics import sqnr_db
from parnet_deploy.quantize.qdq import affine
from parnet_deploy.quantize.qdq_cpu import quantize_for_cpu, weight_limit
from parnet_deploy.runtime.onnxruntime.cpu import run_once
from parnet_deploy.spec import IMAGE, LOGITS
from tests.networks import SPECS
from tests.quantize.networks import by_output, constants, exported


def lowered(name: str, **options) -> dict[str, onnx.ModelProto]:
    made = exported(name)
    return {
        part: quantize_for_cpu(model, made.ranges, **options) for part, model in made.graphs.items()
    }


@pytest.mark.parametrize("name", SPECS)
def test_kernels_and_emulation_agree_and_are_close_to_float32(name) -> None:
    made = exported(name)
    graphs = lowered(name)
    reference = made.full.logits(made.images)
    exact = PartChain(made.spec, graphs, ChainOptions(emulate=True)).logits(made.images)
    kernels = PartChain(made.spec, graphs).logits(made.images)
    assert sqnr_db(kernels, exact) > 30
    assert sqnr_db(kernels, reference) > 15
    assert not np.array_equal(exact, reference)


@pytest.mark.parametrize("name", SPECS)
def test_parts_exchange_float32_under_their_own_names(name) -> None:
    made = exported(name)
    for part, model in lowered(name).items():
        before, after = made.graphs[part].graph, model.graph
        assert [v.name for v in after.input] == [v.name for v in before.input]
        assert [v.name for v in after.output] == [v.name for v in before.output]
        assert [v.type for v in after.output] == [v.type for v in before.output]


def test_what_reads_the_image_and_what_gives_the_logits_stays_in_float32() -> None:
    graphs = lowered("three")
    stem, head = graphs["stem0"], graphs["head"]
    assert all(
        node.op_type in ("Conv", "GlobalAveragePool")
        for node in stem.graph.node
        if IMAGE in node.input
    )
    assert not [n for n in stem.graph.node if n.op_type == "QuantizeLinear" and IMAGE in n.input]
    assert by_output(head)[LOGITS].op_type == "Gemm"


def test_weights_are_signed_by_channel_and_keep_to_the_limit() -> None:
    for limit in (64, 127):
        model = lowered("three", limit=limit)["stream1"]
        values = constants(model)
        codes = values["streams.1.0.conv.weight/quantized"]
        scale = values["streams.1.0.conv.weight/scale"]
        assert codes.dtype == np.int8
        assert np.abs(codes.astype(int)).max() == limit
        assert scale.shape == (len(codes),)
        weight = constants(exported("three").graphs["stream1"])["streams.1.0.conv.weight"]
        back = codes * scale.reshape(-1, 1, 1, 1)
        assert np.abs(back - weight).max() <= 0.5001 * scale.max()


def test_biases_are_in_units_of_input_times_weight() -> None:
    model = lowered("three")["stream1"]
    values = constants(model)
    node = next(n for n in model.graph.node if n.name == "streams.1.0/conv")
    source = by_output(model)[node.input[0]]
    product = values[source.input[1]] * values["streams.1.0.conv.weight/scale"]
    bias = values["streams.1.0.conv.bias/quantized"]
    assert bias.dtype == np.int32
    np.testing.assert_allclose(values["streams.1.0.conv.bias/scale"], product, rtol=1e-6)


def test_a_dead_channel_with_a_large_bias_does_not_overflow() -> None:
    made = exported("three")
    model = onnx.ModelProto()
    model.CopyFrom(made.graphs["stream1"])
    weight = next(w for w in model.graph.initializer if w.name == "streams.1.0.conv.weight")
    values = onnx.numpy_helper.to_array(weight).copy()
    values[0] = 0
    weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    bias = next(w for w in model.graph.initializer if w.name == "streams.1.0.conv.bias")
    shift = onnx.numpy_helper.to_array(bias).copy()
    shift[0] = 50.0
    bias.CopyFrom(onnx.numpy_helper.from_array(shift, bias.name))
    found = constants(quantize_for_cpu(model, made.ranges))
    back = found["streams.1.0.conv.bias/quantized"] * found["streams.1.0.conv.bias/scale"].astype(
        np.float64
    )
    assert back[0] == pytest.approx(50.0, rel=1e-3)


def test_a_kept_layer_has_no_8_bit_operation() -> None:
    made = exported("three")
    model = quantize_for_cpu(made.graphs["stream1"], made.ranges, keep=["streams.1.0"])
    source = by_output(model)
    for node in model.graph.node:
        # its output is coded, for the next block reads it
        if node.name.startswith("streams.1.0/") and "/silu/" not in node.name:
            assert node.op_type not in ("QuantizeLinear", "DequantizeLinear")
            assert not [n for n in node.input if n.startswith("streams.1.0.") and "/" in n]
    assert "streams.1.0.conv.weight" in constants(model)
    assert source["streams.1.1/conv"].input[0] == "streams.1.0/silu/dequantized"


def test_onnx_runtime_fuses_everything_into_integer_kernels(tmp_path: Path) -> None:
    made = exported("three")
    merged = merge_segment(one(made.spec).segments[0], made.spec, lowered("three"))
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 3
    ort.InferenceSession(merged.SerializeToString(), options, providers=["CPUExecutionProvider"])
    kinds = Counter(node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node)
    assert kinds["Conv"] + kinds["FusedConv"] == 1  # the first one
    assert kinds["QLinearConv"] > 20
    assert kinds["QLinearAdd"] > 0
    assert kinds["QLinearMul"] > 0
    assert kinds["Add"] + kinds["Mul"] + kinds["Sigmoid"] == 0
    assert kinds["QuantizeLinear"] <= 3
    assert kinds["DequantizeLinear"] <= 1


def test_a_relu_is_left_to_the_pair_after_it() -> None:
    model = lowered("odd-relu")["stream0"]
    for node in model.graph.node:
        if node.op_type == "Relu":
            assert by_output(model)[node.input[0]].op_type != "DequantizeLinear"
            reader = next(n for n in model.graph.node if node.output[0] in n.input)
            assert reader.op_type == "QuantizeLinear"


def test_a_range_of_sizes_can_be_quantized() -> None:
    made = exported("three", dynamic=True)
    graphs = {k: quantize_for_cpu(model, made.ranges) for k, model in made.graphs.items()}
    reference = made.full.logits(made.images)
    assert sqnr_db(PartChain(made.spec, graphs).logits(made.images), reference) > 15


def test_merged_parts_give_what_the_parts_give() -> None:
    made = exported("three")
    graphs = lowered("three")
    merged = merge_segment(one(made.spec).segments[0], made.spec, graphs)
    got = run_once(merged.SerializeToString(), {IMAGE: made.images}, emulate=True)[LOGITS]
    expected = PartChain(made.spec, graphs, ChainOptions(emulate=True)).logits(made.images)
    np.testing.assert_allclose(got, expected, atol=1e-5 * np.abs(expected).max())


def test_the_bytes_are_the_same_every_time_and_the_part_is_untouched() -> None:
    made = exported("three")
    before = made.graphs["head"].SerializeToString(deterministic=True)
    first, second = (
        quantize_for_cpu(made.graphs["head"], made.ranges).SerializeToString(deterministic=True)
        for _ in range(2)
    )
    assert first == second
    assert made.graphs["head"].SerializeToString(deterministic=True) == before


def test_foreign_ranges_are_no_silent_guess() -> None:
    made = exported("three")
    foreign = {k: v for k, v in exported("two").ranges.items() if not k.startswith("streams.1")}
    with pytest.raises(KeyError, match=r"streams\.1"):
        quantize_for_cpu(made.graphs["stream1"], foreign)


@pytest.mark.parametrize(
    ("low", "high"), [(-1.0, 3.0), (0.0, 2.0), (-5.0, 0.0), (0.0, 0.0), (1.0, 4.0)]
)
def test_zero_is_always_exact(low, high) -> None:
    code = affine(low, high)
    assert 0 <= code.zero_point <= 255
    values = np.array([0.0, low, high], np.float32)
    back = (code.encode(values).astype(float) - code.zero_point) * code.scale
    assert back[0] == 0
    np.testing.assert_allclose(back, values, atol=0.51 * code.scale)


def test_the_limit_follows_the_instructions_of_the_processor() -> None:
    assert weight_limit(["avx2"]) == weight_limit(["avx512f"]) == weight_limit([]) == 64
    assert weight_limit(["avx2", "avx_vnni"]) == weight_limit(["avx512_vnni"]) == 127
    assert 2 * 255 * 64 <= 32767 < 2 * 255 * 127
