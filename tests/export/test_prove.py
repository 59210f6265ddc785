"""The proof holds for what is right, and finds everything that can be wrong with a fold."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from parnet_deploy.errors import CheckFailedError
from parnet_deploy.export import fuse
from parnet_deploy.export import prove as prove_module
from parnet_deploy.export.fuse import FusedNetwork, fuse_network
from parnet_deploy.export.prove import FuseProof, prove
from parnet_deploy.spec import BlockSpec
from tests.networks import SPEC, SPECS, State, random_state

Fields = dict[str, Tensor]


@pytest.fixture(scope="module")
def state() -> State:
    return random_state(SPEC)


@pytest.fixture(scope="module")
def proof(state: State) -> FuseProof:
    return prove(state, fuse_network(state, SPEC)).require()


@pytest.mark.parametrize("name", SPECS)
def test_right_folds_pass(name: str) -> None:
    spec = SPECS[name]
    weights = random_state(spec)
    seen: list[str] = []
    found = prove(weights, fuse_network(weights, spec), on_block=seen.append).require()
    assert seen == [block.name for block in spec.blocks] == [p.block for p in found.blocks]
    assert found.float64.error < 1e-12
    assert all(p.float64.error < 1e-12 and p.float32.error < 1e-5 for p in found.blocks)


def test_operations_are_counted_by_what_torch_runs(proof: FuseProof) -> None:
    for entry in proof.blocks:
        norms = {"residual": 3, "down": 2, "fusion": 4}[entry.kind]
        convolutions = {"residual": (3, 2), "down": (3, 2), "fusion": (3, 4)}[entry.kind]
        assert (entry.before.batch_norms, entry.after.batch_norms) == (norms, 0), entry.block
        counted = (entry.before.convolutions, entry.after.convolutions)
        assert counted == convolutions, entry.block
        assert entry.after.total < entry.before.total
    totals = proof.totals()
    assert totals["before"]["batch_norms"] == sum(p.before.batch_norms for p in proof.blocks)
    assert totals["after"]["batch_norms"] == 0


def test_every_batch_norm_of_the_network_is_counted(state: State, proof: FuseProof) -> None:
    there = sum(name.endswith("running_var") for name in state)
    assert proof.totals()["before"]["batch_norms"] == there


def test_report_is_plain_json(proof: FuseProof) -> None:
    report = json.loads(json.dumps(proof.to_json(), allow_nan=False))
    assert report["float64"]["passed"] is True
    assert [entry["block"] for entry in report["blocks"]] == [b.name for b in SPEC.blocks]
    stayed = {entry["kind"]: entry["stayed"] for entry in report["blocks"]}
    assert "the product depends on the data" in stayed["residual"]
    shuffled = [e["block"] for e in report["blocks"] if "channel shuffle" in e["stayed"]]
    assert shuffled == ["downsamples_2.1.2"]


def test_the_images_are_those_of_the_seed(state: State) -> None:
    network = fuse_network(state, SPEC)
    first, again, other = (prove(state, network, seed=seed).float32 for seed in (0, 0, 1))
    assert first == again != other


# Each of these is a way in which the fold could be wrong. It must not pass.


def centred_pool_taps(fields: Fields, block: BlockSpec) -> None:
    """The pooled 1x1 put on the first instead of the last four taps."""
    if block.kind == "down":
        fields["conv.weight"] = fields["conv.weight"].flip(2, 3)


def no_factor_two(fields: Fields, block: BlockSpec) -> None:
    if block.kind == "down":
        fields["conv.weight"] = fields["conv.weight"] / 2
        fields["conv.bias"] = fields["conv.bias"] / 2


def constant_border(fields: Fields, block: BlockSpec) -> None:
    """The shift folded into a constant: right in the interior only."""
    if block.kind == "fusion":
        fields["conv.bias"] = fields["conv.bias"] + fields["border.weight"].sum((1, 2, 3))
        fields["border.weight"] = torch.zeros_like(fields["border.weight"])


def swapped_inputs(fields: Fields, block: BlockSpec) -> None:
    """Odd and even channels of the interleaving concat mixed up."""
    if block.kind == "fusion":
        fields["conv_a.weight"], fields["conv_b.weight"] = (
            fields["conv_b.weight"],
            fields["conv_a.weight"],
        )


def no_gate_bias(fields: Fields, block: BlockSpec) -> None:
    """The shift of the identity BatchNorm forgotten inside the gate."""
    if "gate.bias" in fields:
        fields["gate.bias"] = torch.zeros_like(fields["gate.bias"])


def no_side_shift(fields: Fields, block: BlockSpec) -> None:
    if block.kind == "residual":
        fields["side.shift"] = torch.zeros_like(fields["side.shift"])


def lost_bias(fields: Fields, block: BlockSpec) -> None:
    fields["conv.bias"] = torch.zeros_like(fields["conv.bias"])


def slightly_off(fields: Fields, block: BlockSpec) -> None:
    """A wrong epsilon, or any error far below what a look at the logits would show."""
    fields["conv.bias"] = fields["conv.bias"] * (1 + 1e-7)


def shuffled_twice(fields: Fields, block: BlockSpec) -> None:
    """The shuffle folded into the head although the fusion before it still shuffles."""
    if block.name == "combine.3":
        order = fuse.unshuffle(block.in_channels)
        fields["conv.weight"] = fields["conv.weight"][:, order]


def not_a_number(fields: Fields, block: BlockSpec) -> None:
    fields["conv.bias"] = fields["conv.bias"] * torch.nan


@pytest.mark.parametrize(
    "spoil",
    [
        centred_pool_taps,
        no_factor_two,
        constant_border,
        swapped_inputs,
        no_gate_bias,
        no_side_shift,
        lost_bias,
        slightly_off,
        shuffled_twice,
        not_a_number,
    ],
)
def test_a_wrong_fold_is_found(
    state: State, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[Fields, BlockSpec], None]
) -> None:
    right = fuse.fuse_block

    def wrong(weights: State, block: BlockSpec, spec: Any) -> Fields:
        fields = right(weights, block, spec)
        spoil(fields, block)
        return fields

    monkeypatch.setattr(fuse, "fuse_block", wrong)
    monkeypatch.setattr(prove_module, "fuse_block", wrong)
    found = prove(state, fuse_network(state, SPEC))
    with pytest.raises(CheckFailedError, match=r"^parity: block .*, float64: "):
        found.require()


def test_wrong_weights_beside_a_right_fold_are_found(state: State) -> None:
    """What is deployed is compared, not only what the fold would give."""
    network = fuse_network(state, SPEC)
    name = "streams.1.1.conv.weight"
    tensors = {**network.tensors, name: network.tensors[name] * 1.001}
    with pytest.raises(CheckFailedError, match=r"^parity: block streams\.1\.1, float32: error"):
        prove(state, FusedNetwork(spec=SPEC, tensors=tensors)).require()


def test_weights_in_half_precision_are_found(state: State) -> None:
    network = fuse_network(state, SPEC)
    tensors = {name: t.half().float() for name, t in network.tensors.items()}
    with pytest.raises(CheckFailedError, match="float32"):
        prove(state, FusedNetwork(spec=SPEC, tensors=tensors)).require()


def test_the_activation_is_the_one_of_the_specification(state: State) -> None:
    relu = dataclasses.replace(SPEC, activation="relu")
    first, second = (prove(state, fuse_network(state, spec)).require() for spec in (SPEC, relu))
    assert first.float32 != second.float32


def test_a_batch_norm_that_is_left_fails(proof: FuseProof) -> None:
    left = dataclasses.replace(proof.blocks[3], after=proof.blocks[3].before)
    broken = dataclasses.replace(proof, blocks=(*proof.blocks[:3], left))
    with pytest.raises(CheckFailedError, match=f"BatchNorm operations remain in {left.block}"):
        broken.require()


def test_whole_network_counts_too(proof: FuseProof) -> None:
    for field in ("float64", "float32"):
        bad = dataclasses.replace(getattr(proof, field), error=1.0)
        with pytest.raises(CheckFailedError, match=f"fused logits, {field}"):
            dataclasses.replace(proof, **{field: bad}).require()
