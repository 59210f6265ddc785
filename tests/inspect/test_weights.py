"""Weights, block by block."""

from __future__ import annotations

import json

import numpy as np
import pytest

from parnet_deploy.deployment import Deployment
from parnet_deploy.errors import DeploymentCorruptError, DeploymentError
from parnet_deploy.inspect.weights import compare_weights, read_weights
from tests.inspect.deployments import SPEC, damage, make, weights


def test_weights_are_read_as_the_library_wrote_them(tmp_path):
    expected = weights()
    found = read_weights(make(tmp_path / "d", tensors=expected))
    assert set(found) == set(expected)
    assert all(np.array_equal(found[name], expected[name]) for name in expected)


def test_only_the_block_that_changed_is_named_and_how_far(tmp_path):
    changed = weights()
    tensor = changed["streams.1.0.conv.weight"] = changed["streams.1.0.conv.weight"].copy()
    tensor[0, 0] += 0.5
    first = make(tmp_path / "a")
    (found,) = compare_weights(first, make(tmp_path / "b", tensors=changed))
    assert found.block == "streams.1.0"
    assert found.before != found.after
    mine = [t for name, t in weights().items() if name.startswith("streams.1.0.")]
    largest = max(float(np.abs(t).max()) for t in mine)
    assert found.change == pytest.approx(0.5 / largest, rel=1e-5)


def test_every_block_is_found_in_the_order_of_the_network(tmp_path):
    other = {name: tensor + 1 for name, tensor in weights().items()}
    found = compare_weights(make(tmp_path / "a"), make(tmp_path / "b", tensors=other))
    assert [c.block for c in found] == [*(block.name for block in SPEC.blocks), "head.fc"]


def test_blocks_of_one_side_and_other_shapes(tmp_path):
    other = weights()
    gone, reshaped = SPEC.blocks[0].name, SPEC.blocks[1].name
    other = {name: t for name, t in other.items() if not name.startswith(f"{gone}.")}
    other[f"{reshaped}.conv.bias"] = np.zeros(3, np.float32)
    other["more.weight"] = np.zeros(3, np.float32)
    found = compare_weights(make(tmp_path / "a"), make(tmp_path / "b", tensors=other))
    assert [(c.block, c.before is None, c.after is None, c.change) for c in found] == [
        (gone, False, True, None),
        (reshaped, False, False, None),
        ("more", True, False, None),
    ]


def test_a_weight_that_is_not_finite_has_no_distance(tmp_path):
    other = weights()
    name = next(iter(other))
    other[name] = np.full_like(other[name], np.inf)
    (found,) = compare_weights(make(tmp_path / "a"), make(tmp_path / "b", tensors=other))
    assert found.change is None
    assert compare_weights(Deployment.open(tmp_path / "b"), Deployment.open(tmp_path / "b")) == []


def test_damaged_weights_are_refused(tmp_path):
    deployment = make(tmp_path / "d")
    damage(deployment, "fused.safetensors")
    with pytest.raises(DeploymentCorruptError, match="it was changed"):
        read_weights(deployment)


HEADERS = {
    "no JSON": b"{",
    "no object": b"[1]",
    "too short": json.dumps({"a.b": {"dtype": "F32", "shape": [9], "data_offsets": [0, 36]}}),
    "before the data": json.dumps({"a.b": {"dtype": "F32", "shape": [1], "data_offsets": [-4, 0]}}),
    "half": json.dumps({"a.b": {"dtype": "F16", "shape": [2], "data_offsets": [0, 4]}}),
    "no shape": json.dumps({"a.b": {"dtype": "F32", "data_offsets": [0, 4]}}),
    "negative": json.dumps({"a.b": {"dtype": "F32", "shape": [-1, -1], "data_offsets": [0, 4]}}),
}


@pytest.mark.parametrize("header", HEADERS.values(), ids=HEADERS)
def test_what_is_no_float32_safetensors_file_is_refused(tmp_path, header):
    header = header if isinstance(header, bytes) else header.encode()
    with Deployment.edit(tmp_path / "d", create=True) as txn:
        txn.describe(spec=SPEC)
        data = len(header).to_bytes(8, "little") + header + b"\0" * 4
        txn.stage("fused.safetensors").write_bytes(data)
        txn.finish_step("fuse", key="fuse")
    with pytest.raises(DeploymentCorruptError, match="expected float32 tensors"):
        read_weights(Deployment.open(tmp_path / "d"))


def test_a_deployment_without_weights(tmp_path):
    with Deployment.edit(tmp_path / "d", create=True) as txn:
        txn.describe(spec=SPEC)
    with pytest.raises(DeploymentError, match=r"got no artifact fused\.safetensors"):
        read_weights(Deployment.open(tmp_path / "d"))
