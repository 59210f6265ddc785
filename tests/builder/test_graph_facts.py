"""What a graph asks for, and the profiles that fit it."""

from __future__ import annotations

from typing import Any

import pytest

from parnet_deploy.builder.tensorrt.graph_facts import read_graph
from parnet_deploy.builder.tensorrt.profiles import (
    ShapeRange,
    check_profiles,
    profiles_from_json,
    profiles_to_json,
    segment_profiles,
)
from parnet_deploy.errors import SpecError
from parnet_deploy.input_size import InputSize
from parnet_deploy.placement import one, streams
from parnet_deploy.spec import IMAGE
from tests.builder.trt_graphs import CHANNELS, conv_graph
from tests.networks import SPEC


@pytest.mark.parametrize(
    ("options", "precision"),
    [
        ({}, "fp32"),
        ({"half": True}, "fp16"),
        ({"quantized": True}, "int8"),
        ({"half": True, "quantized": True}, "int8+fp16"),
    ],
)
def test_precision(options: dict[str, bool], precision: str) -> None:
    facts = read_graph(conv_graph(**options), "x")
    assert facts.precision == precision
    assert facts.inputs == {"x": (None, CHANNELS, None, None)}
    assert facts.keep_float == ()


def test_float_nodes_of_a_half_graph() -> None:
    assert read_graph(conv_graph(half=True, float_tail=True), "x").keep_float == ("tail",)
    assert read_graph(conv_graph(float_tail=True), "x").keep_float == (), "nothing to tell apart"


def test_fixed_batch() -> None:
    assert read_graph(conv_graph(batch=2), "x").inputs["x"][0] == 2


def test_profiles_of_segments() -> None:
    size = InputSize(low=(32, 64), high=(64, 96))
    for segment in (*one(SPEC).segments, *streams(SPEC).segments):
        single, many = segment_profiles(segment, SPEC, size, max_batch=8)
        assert set(single) == set(many) == set(segment.inputs)
        for name in segment.inputs:
            low = SPEC.tensors[name].shape(32, 64)
            high = SPEC.tensors[name].shape(64, 96)
            assert single[name] == ((1, *low), (1, *high), (1, *high))
            assert many[name] == ((2, *low), (8, *high), (8, *high))
    assert len(segment_profiles(segment, SPEC, size, max_batch=1)) == 1
    two = segment_profiles(one(SPEC).segments[0], SPEC, size, max_batch=2)
    assert two[1][IMAGE].least[0] == two[1][IMAGE].greatest[0] == 2


def test_json_and_back() -> None:
    size = InputSize(low=(32, 32), high=(32, 32))
    profiles = segment_profiles(streams(SPEC).segments[-1], SPEC, size, max_batch=4)
    assert profiles_from_json(profiles_to_json(profiles)) == profiles


INPUTS = {"x": (None, 4, None)}
GOOD = ShapeRange((1, 4, 8), (2, 4, 8), (3, 4, 16))


@pytest.mark.parametrize(
    ("profile", "text"),
    [
        ({}, r"profile 1 of s: got inputs \[\], expected \['x'\]"),
        ({"x": GOOD, "y": GOOD}, r"got inputs \['x', 'y'\]"),
        ({"x": ShapeRange((1, 4), (1, 4), (1, 4))}, "expected 3 axes"),
        ({"x": ShapeRange((1, 4, 8), (1, 4), (1, 4, 8))}, "expected 3 axes"),
        (
            {"x": ShapeRange((1, 4, 8), (4, 4, 8), (3, 4, 8))},
            "input x, axis 0: got 1, 4, 3, expected 1 <= least <= usual <= greatest",
        ),
        ({"x": ShapeRange((3, 4, 8), (2, 4, 8), (4, 4, 8))}, "axis 0: got 3, 2, 4"),
        ({"x": ShapeRange((0, 4, 8), (2, 4, 8), (4, 4, 8))}, "axis 0: got 0, 2, 4"),
        ({"x": ShapeRange((1, 3, 8), (1, 3, 8), (1, 3, 8))}, "axis 1: got 3 to 3, expected 4"),
        ({"x": ShapeRange((1, 4, 8), (1, 4, 8), (1, 5, 8))}, "axis 1: got 4 to 5, expected 4"),
    ],
)
def test_profiles_that_cannot_be(profile: Any, text: str) -> None:
    check_profiles([{"x": GOOD}], INPUTS, "s")
    with pytest.raises(SpecError, match=text):
        check_profiles([{"x": GOOD}, profile], INPUTS, "s")
