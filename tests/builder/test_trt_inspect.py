"""The inspector's JSON as 8.6, 10 and 11 write it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from parnet_deploy.builder.tensorrt.inspection import inspect_engine, read_inspection
from parnet_deploy.errors import EngineLoadError
from tests.builder.trt_graphs import conv_graph
from tests.runtime.test_trt_compat import Bound, load
from tests.stubs.fake_tensorrt import VERSIONS, fake_tensorrt


def layer(kind: str, read: dict[str, Any], written: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"Name": "n", "LayerType": kind, "Inputs": [read], "Outputs": [written], **more}


def old(text: str) -> dict[str, Any]:
    return {"Name": "t", "Dimensions": [1, 3], "Format/Datatype": text}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Row major linear FP32", "float32"),
        ("Row major linear FP16 format", "float16"),
        ("Two wide channel vectorized row major FP16 format", "float16"),
        ("Thirty-two wide channel vectorized row major Int8 format.", "int8"),
        ("Channel major FP16 format where channel % 8 == 0", "float16"),
        ("Half", "float16"),
        ("Float", "float32"),
        ("BFloat16", "bfloat16"),
        ("Row major BF16 format", "bfloat16"),
        ("FP8", "float8"),
        ("Int32", "int32"),
        ("Int64", "int64"),
        ("Bool", "bool"),
        ("N/A due to dynamic shapes", "unknown"),
    ],
)
def test_words_of_a_format(text: str, expected: str) -> None:
    found = read_inspection(json.dumps({"Layers": [layer("Conv", old(text), old(text))]}))
    assert found.layers[0].precision == expected
    assert found.by_precision == {expected: 1}
    assert found.runs_in(expected) is (expected != "unknown")


def test_version_11_splits_format_and_type() -> None:
    """The format's own text names another type there; the separate one counts."""
    tensor = {"Name": "t", "Format": "Row major linear FP32 format (kLINEAR)", "DataType": "Half"}
    text = {"Layers": [layer("CaskConvolution", tensor, tensor)], "I/O Tensors": [{"Name": "x"}]}
    found = read_inspection(json.dumps(text))
    assert found.by_precision == {"float16": 1}
    assert found.tensors == ("x",)


def test_bindings_up_to_10() -> None:
    assert read_inspection('{"Layers": [], "Bindings": ["x", "y"]}').tensors == ("x", "y")


def test_moves_are_counted_apart() -> None:
    half, full = old("FP16"), old("FP32")
    layers = [
        layer("Reformat", full, half),
        layer("CaskConvolution", half, full),
        layer("NoOp", full, full),
    ]
    found = read_inspection(json.dumps({"Layers": layers}))
    assert found.reformats == 1
    assert found.by_precision == {"float16": 1}
    only_moved = read_inspection(json.dumps({"Layers": layers[:1]}))
    assert not only_moved.runs_in("float16"), "a reformat computes nothing"


def test_weights_tell_where_formats_do_not() -> None:
    unknown = old("N/A due to dynamic shapes")
    held = {"Weights": {"Type": "Half", "Count": 9}, "Bias": {"Type": "Float", "Count": 0}}
    found = read_inspection(json.dumps({"Layers": [layer("Conv", unknown, unknown, **held)]}))
    assert found.by_precision == {"float16": 1}
    assert not found.runs_in("float32")


def test_fused_layers_are_marked() -> None:
    layers = [{"Name": "{ForeignNode[a...b]}", "LayerType": "Myelin"}]
    found = read_inspection(json.dumps({"Layers": layers}))
    assert (found.fused, found.by_precision) == (1, {"unknown": 1})


def test_names_only() -> None:
    found = read_inspection('{"Layers": ["conv + relu"], "Bindings": []}')
    assert found.layers[0].name == "conv + relu"
    assert found.by_precision == {"unknown": 1}


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"Layers": [{}]}', '{"Layers": 3}', "null"])
def test_not_an_inspection(text: str) -> None:
    with pytest.raises(EngineLoadError, match=r"engine inspector: got .*expected JSON with layers"):
        read_inspection(text)


@pytest.mark.parametrize("version", VERSIONS)
def test_dynamic_shapes_need_a_context(version: str) -> None:
    trt = fake_tensorrt(version)
    engine = load(trt, conv_graph(), profiling_verbosity=trt.ProfilingVerbosity.DETAILED)
    bound = Bound(trt, engine, profile=0, batch=1)
    assert inspect_engine(trt, engine, bound.context).by_precision == {"float32": 3}
    alone = inspect_engine(trt, engine).by_precision
    assert alone == ({"float32": 3} if version == "11.4" else {"unknown": 3})
