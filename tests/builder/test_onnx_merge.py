"""Segments merged from parts: the chain's answer, exactly the declared tensors, no foreign part."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from parnet_deploy.builder.onnx_merge import merge_segment
from parnet_deploy.errors import EngineBuildError
from parnet_deploy.export.fuse import fuse_network
from parnet_deploy.export.to_onnx import part_to_onnx
from parnet_deploy.input_size import InputSize
from parnet_deploy.placement import Placement, Segment, one, streams
from parnet_deploy.runtime.onnxruntime.cpu import run_once
from parnet_deploy.spec import IMAGE, LOGITS, ModelSpec
from tests.networks import SPEC, SPECS, random_image, random_state

Array = NDArray[np.float32]


def export(spec: ModelSpec, side: int = 0, seed: int = 0) -> dict[str, onnx.ModelProto]:
    side = side or spec.size_multiple
    size = InputSize(low=(side, side), high=(side, side))
    network = fuse_network(random_state(spec, seed), spec)
    return {part.name: part_to_onnx(network, part, size) for part in spec.parts}


@cache
def parts(name: str) -> dict[str, onnx.ModelProto]:
    return export(SPECS[name])


@cache
def values(name: str) -> dict[str, Array]:
    """Every tensor of the network, one part after the other."""
    spec = SPECS[name]
    found: dict[str, Array] = {IMAGE: random_image(spec, 2).numpy()}
    for part in spec.parts:
        data = parts(name)[part.name].SerializeToString()
        found |= run_once(data, {tensor: found[tensor] for tensor in part.inputs})
    return found


@pytest.mark.parametrize("make", [one, streams])
@pytest.mark.parametrize("name", SPECS)
def test_merged_gives_what_the_parts_give(
    name: str, make: Callable[[ModelSpec], Placement]
) -> None:
    spec = SPECS[name]
    for segment in make(spec).segments:
        merged = merge_segment(segment, spec, parts(name))
        onnx.checker.check_model(merged, full_check=True)
        assert tuple(value.name for value in merged.graph.input) == segment.inputs
        assert tuple(value.name for value in merged.graph.output) == segment.outputs
        feeds = {tensor: values(name)[tensor] for tensor in segment.inputs}
        got = run_once(merged.SerializeToString(), feeds)
        for tensor in segment.outputs:
            largest = np.abs(values(name)[tensor]).max()
            assert np.abs(got[tensor] - values(name)[tensor]).max() <= 1e-5 * largest


def test_every_node_and_weight_is_there_once() -> None:
    merged = merge_segment(one(SPEC).segments[0], SPEC, parts("three"))
    nodes = [node.name for model in parts("three").values() for node in model.graph.node]
    assert sorted(node.name for node in merged.graph.node) == sorted(nodes)
    weights = [w.name for model in parts("three").values() for w in model.graph.initializer]
    assert sorted(w.name for w in merged.graph.initializer) == sorted(weights)


def test_the_same_bytes_every_time_and_parts_untouched() -> None:
    before = {name: m.SerializeToString(deterministic=True) for name, m in parts("three").items()}
    segment = streams(SPEC).segments[0]
    first, second = (
        merge_segment(segment, SPEC, parts("three")).SerializeToString(deterministic=True)
        for _ in range(2)
    )
    assert first == second
    after = {name: m.SerializeToString(deterministic=True) for name, m in parts("three").items()}
    assert before == after


def test_the_order_of_a_segment_does_not_matter() -> None:
    """Nodes are put in the order of the network, whatever the placement's file says."""
    segment = one(SPEC).segments[0]
    turned = Segment(
        name="all", parts=segment.parts[::-1], inputs=segment.inputs, outputs=segment.outputs
    )
    merged = merge_segment(turned, SPEC, parts("three"))
    got = run_once(merged.SerializeToString(), {IMAGE: values("three")[IMAGE]})[LOGITS]
    np.testing.assert_allclose(got, values("three")[LOGITS], rtol=1e-4, atol=1e-5)


def test_an_inner_tensor_can_be_an_output_too() -> None:
    segment = Segment(
        name="s", parts=("stem0", "stem1"), inputs=(IMAGE,), outputs=("x1", "x0"), device=0
    )
    got = run_once(
        merge_segment(segment, SPEC, parts("three")).SerializeToString(),
        {IMAGE: values("three")[IMAGE]},
    )
    assert list(got) == ["x1", "x0"]
    np.testing.assert_allclose(got["x0"], values("three")["x0"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        ("stem0", lambda: parts("odd-relu")["stem0"], "tensor x0 has two shapes or types"),
        ("stem0", lambda: export(SPEC, side=64)["stem0"], "tensor x0 has two shapes or types"),
        ("head", lambda: parts("four")["head"], "cannot join parts stem0, stem1, stem2, stream0"),
        ("fusion1", lambda: parts("three")["fusion0"], "cannot join parts"),
        ("stream1", lambda: onnx.ModelProto(), "cannot join parts"),
    ],
)
def test_foreign_parts_are_refused(
    name: str, make: Callable[[], onnx.ModelProto], message: str
) -> None:
    mixed = {**parts("three"), name: make()}
    with pytest.raises(EngineBuildError) as caught:
        merge_segment(one(SPEC).segments[0], SPEC, mixed)
    text = str(caught.value)
    assert text.startswith("segment all: cannot join parts stem0, ")
    assert message in text
    assert "The graphs are of different models. Run: parnet-deploy export." in text


def test_a_missing_part_is_refused() -> None:
    less = {name: model for name, model in parts("three").items() if name != "stream1"}
    with pytest.raises(EngineBuildError, match=r"cannot join parts .*'stream1'"):
        merge_segment(one(SPEC).segments[0], SPEC, less)


def test_an_output_that_no_part_writes_is_refused() -> None:
    segment = Segment(name="s", parts=("stem0",), inputs=(IMAGE,), outputs=("x1",))
    with pytest.raises(EngineBuildError, match=r"segment s: cannot join parts stem0: 'x1'"):
        merge_segment(segment, SPEC, parts("three"))
