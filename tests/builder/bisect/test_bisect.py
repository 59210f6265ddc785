"""Engines that are made wrong on purpose: the very layer is named."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from parnet_deploy.builder.bisect import bisect as module
from parnet_deploy.builder.bisect.bisect import ALL_SHOWN, GONE, ONE_BY_ONE, bisect_plan
from parnet_deploy.builder.bisect.graphs import Graph
from parnet_deploy.builder.build import BuildOptions, build_to_deployment
from parnet_deploy.deployment import Deployment
from tests.builder.bisect.tampering import scale_weight, spoil_weight, tamper

GUILTY = "streams.1.0/conv"
ONE, STREAMS = "onnxruntime-fp32-one", "onnxruntime-fp32-streams"


@pytest.fixture
def built(exported: Path) -> Path:
    for placement in ("one", "streams"):
        build_to_deployment(exported, BuildOptions(placement=placement))
    return exported


def find(directory: Path, key: str):
    return bisect_plan(Deployment.open(directory), key)


@pytest.mark.parametrize("key", [ONE, STREAMS])
def test_a_plan_that_is_right_has_nothing_to_find(built: Path, key: str) -> None:
    found = find(built, key)
    assert not found
    assert found.layer is None
    assert all(found.engines)
    assert all(found.whole)
    json.dumps(found.to_json())


@pytest.mark.parametrize(
    ("node", "part"),
    [
        ("inits.0.1/conv", "stem0"),
        ("streams.1.1/conv", "stream1"),
        ("downsamples_2.0/conv", "fusion0"),
        ("combine.3/conv", "head"),
        ("head/fc", "head"),
    ],
)
def test_a_changed_weight_is_found_in_one_engine(built: Path, node: str, part: str) -> None:
    tamper(built, f"plans/{ONE}/all.onnx", lambda graph: scale_weight(graph, node))
    found = find(built, ONE)
    assert found
    assert (found.engine, found.part, found.method) == ("all", part, ALL_SHOWN)
    assert found.layer is not None
    assert found.layer.name == node
    assert found.error > found.limit
    assert "1 of" in found.differs[0]
    assert "(0, 0, 2, 1)" in found.differs[0] or part == "head"


def test_the_first_of_two_faults_is_found(built: Path) -> None:
    def change(graph: onnx.GraphProto) -> None:
        scale_weight(graph, "streams.2.1/conv")
        scale_weight(graph, "combine.3/conv")

    tamper(built, f"plans/{ONE}/all.onnx", change)
    assert find(built, ONE).layer.name == "streams.2.1/conv"


def test_a_wrong_engine_among_right_ones_is_named(built: Path) -> None:
    tamper(built, f"plans/{STREAMS}/stream1.onnx", lambda g: scale_weight(g, GUILTY))
    found = find(built, STREAMS)
    assert (found.engine, found.part, found.layer.name) == (
        "stream1",
        "stream1",
        "streams.1.0/conv",
    )
    wrong = [check.what for check in found.engines if not check]
    assert all(what.startswith("engine stream1,") for what in wrong), "errors do not spread"


def test_a_changed_attribute_is_told(built: Path) -> None:
    def change(graph: onnx.GraphProto) -> None:
        node = next(node for node in graph.node if node.name == "streams.0.1/conv")
        pads = next(item for item in node.attribute if item.name == "pads")
        pads.ints[:] = [2, 2, 0, 0]

    tamper(built, f"plans/{ONE}/all.onnx", change)
    found = find(built, ONE)
    assert found.layer.name == "streams.0.1/conv"
    assert list(found.differs) == ["attribute pads: got [2, 2, 0, 0], expected [1, 1, 1, 1]"]


def test_another_operator_is_told(built: Path) -> None:
    def change(graph: onnx.GraphProto) -> None:
        node = next(node for node in graph.node if node.name == "streams.0.0/gate_sigmoid")
        node.op_type = "Tanh"

    tamper(built, f"plans/{ONE}/all.onnx", change)
    found = find(built, ONE)
    assert found.layer.name == "streams.0.0/gate_sigmoid"
    assert list(found.differs) == ["operator: got Tanh, expected Sigmoid"]


def test_a_fault_that_hides_when_tensors_are_shown_is_halved(built: Path, monkeypatch) -> None:
    """An optimiser's fault: as soon as the inside of a graph is visible, it is right."""
    truth = module.run_graph

    def answers(model: bytes, feeds):
        graph = Graph(onnx.load_from_string(model))
        found = truth(model, feeds)
        if len(graph.outputs) < 5 and any(n.name == GUILTY for n in graph.model.graph.node):
            found = {name: array + 3 * np.abs(array).max() for name, array in found.items()}
        return found

    monkeypatch.setattr(module, "answers_of", lambda plan, device: answers)
    tamper(built, f"plans/{ONE}/all.onnx", lambda graph: scale_weight(graph, "combine.3/conv"))
    monkeypatch.setattr(
        module, "_engine_graph", lambda files, segment, expected: expected, raising=True
    )
    found = find(built, ONE)
    assert found.method == ONE_BY_ONE
    assert found.layer.name == GUILTY
    assert list(found.differs) == [], "the graph is right, the kernel is not"


def test_a_fault_of_loading_is_in_no_layer(built: Path, monkeypatch) -> None:
    tamper(built, f"plans/{ONE}/all.onnx", lambda graph: scale_weight(graph, "combine.3/conv"))
    monkeypatch.setattr(
        module, "_engine_graph", lambda files, segment, expected: expected, raising=True
    )
    found = find(built, ONE)
    assert found
    assert (found.engine, found.layer, found.method) == ("all", None, GONE)


def test_engines_that_are_right_and_a_whole_that_is_not(built: Path, monkeypatch) -> None:
    def wrong(runtime, image, logits, **more):
        return [module.compare(logits + 1, logits, tolerance=1e-4, what="whole, batch 1")]

    monkeypatch.setattr(module, "verify_whole", wrong)
    found = find(built, STREAMS)
    assert found
    assert found.engine is None
    assert all(found.engines)
    assert not all(found.whole)


def test_nan_is_found_where_it_begins(built: Path) -> None:
    node = "streams.2.0/conv"
    tamper(built, f"plans/{ONE}/all.onnx", lambda graph: spoil_weight(graph, node))
    assert find(built, ONE).layer.name == node


def test_a_renamed_tensor_hides_nothing_else(built: Path) -> None:
    def change(graph: onnx.GraphProto) -> None:
        scale_weight(graph, "streams.0.1/conv")
        node = next(node for node in graph.node if node.name == "streams.0.0/conv")
        old, node.output[0] = node.output[0], "renamed"
        for other in graph.node:
            names = ["renamed" if name == old else name for name in other.input]
            other.input[:] = names

    tamper(built, f"plans/{ONE}/all.onnx", change)
    assert find(built, ONE).layer.name == "streams.0.1/conv"


def test_a_graph_that_ends_at_a_tensor_computes_only_what_it_needs() -> None:
    make = helper.make_node
    nodes = [make("Relu", ["x"], ["a"]), make("Neg", ["a"], ["b"]), make("Exp", ["x"], ["c"])]
    float32 = onnx.TensorProto.FLOAT
    info = [helper.make_tensor_value_info(name, float32, [2]) for name in ("x", "y", "b", "c")]
    graph = Graph(helper.make_model(helper.make_graph(nodes, "toy", info[:2], info[2:])))
    cut = onnx.load_from_string(graph.ending_at("b")).graph
    assert [node.op_type for node in cut.node] == ["Relu", "Neg"]
    assert [item.name for item in cut.input] == ["x"]
    assert graph.behind("b") == {"a", "b"}
