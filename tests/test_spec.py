"""The network as data: every parameter in exactly one part, sizes, costs, and what cannot be."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from parnet_deploy.errors import SpecError
from parnet_deploy.export.fuse import fuse_network
from parnet_deploy.export.model import ParNet
from parnet_deploy.spec import IMAGE, LOGITS, RELEASED, ModelSpec
from tests.networks import SPEC, SPECS


@st.composite
def specs(draw: st.DrawFn) -> ModelSpec:
    """Any network that can be, small."""
    streams = draw(st.integers(2, 6))
    even = st.integers(1, 9).map(lambda half: 2 * half)
    widths = [
        draw(even if i >= 2 or i == streams - 1 else st.integers(1, 19)) for i in range(streams)
    ]
    return ModelSpec(
        planes=(*widths, draw(st.integers(1, 40))),
        num_blocks=(*(draw(st.integers(1, 5)) for _ in range(streams)), 1),
        num_classes=draw(st.integers(1, 9)),
        activation=draw(st.sampled_from(["silu", "relu"])),
        in_channels=draw(st.integers(1, 4)),
    )


def prefixes(spec: ModelSpec) -> dict[str, list[str]]:
    """Of each part: what its parameters' names begin with."""
    found = {}
    for part in spec.parts:
        found[part.name] = [f"{block.name}.block." for block in part.blocks]
        found[part.name] += [f"{block.norm}." for block in part.blocks if block.norm]
    found["head"].append("head.fc.")
    return found


@given(spec=specs())
def test_parts_cover_every_parameter_exactly_once(spec: ModelSpec) -> None:
    with torch.device("meta"):
        names = list(ParNet(spec).state_dict())
    owners = prefixes(spec)
    for name in names:
        holding = [part for part, starts in owners.items() if name.startswith(tuple(starts))]
        assert len(holding) == 1, (name, holding)
    assert all(any(n.startswith(s) for n in names) for starts in owners.values() for s in starts)


def test_fused_tensors_belong_to_exactly_one_block() -> None:
    with torch.device("meta"):
        state = ParNet(SPEC).state_dict()
    owners = [f"{block.name}." for block in SPEC.blocks] + ["head.fc."]
    for name in fuse_network(state, SPEC).tensors:
        assert sum(name.startswith(owner) for owner in owners) == 1, name


@given(spec=specs())
def test_parts_are_in_an_order_in_which_they_can_run(spec: ModelSpec) -> None:
    known = {IMAGE}
    for part in spec.parts:
        assert set(part.inputs) <= known
        assert part.output not in known
        known.add(part.output)
    assert LOGITS in known
    assert len({part.name for part in spec.parts}) == len(spec.parts) == 3 * spec.streams
    assert len({block.name for block in spec.blocks}) == len(spec.blocks)
    read = {name for part in spec.parts for name in part.inputs}
    assert read == known - {LOGITS}  # nothing is computed in vain


@given(spec=specs())
def test_blocks_fit_together(spec: ModelSpec) -> None:
    for part in spec.parts:
        channels = spec.tensors[part.inputs[0]].channels
        assert all(spec.tensors[name].channels == channels for name in part.inputs)
        for block in part.blocks:
            assert block.in_channels == channels
            assert block.conv_in_channels % block.groups == block.out_channels % block.groups == 0
            channels = block.out_channels
        expected = spec.num_classes if part.output == LOGITS else channels
        assert spec.tensors[part.output].channels == expected


@given(spec=specs(), times=st.tuples(st.integers(1, 3), st.integers(1, 3)))
def test_every_stride_meets_an_even_map_at_a_legal_size(
    spec: ModelSpec, times: tuple[int, int]
) -> None:
    height, width = (n * spec.size_multiple for n in times)
    spec.check_size(height, width)
    for part in spec.parts:
        sizes = {spec.tensors[name].shape(height, width)[1:] for name in part.inputs}
        assert len(sizes) == 1
        h, w = sizes.pop()
        for block in part.blocks:
            assert h % block.stride == w % block.stride == 0
            h, w = h // block.stride, w // block.stride
        assert h > 0
        assert w > 0


@given(spec=specs(), height=st.integers(0, 300), width=st.integers(0, 300))
def test_only_multiples_are_legal(spec: ModelSpec, height: int, width: int) -> None:
    multiple = 2 ** (spec.streams + 2)
    legal = height > 0 and width > 0 and height % multiple == 0 and width % multiple == 0
    if legal:
        spec.check_size(height, width)
        return
    with pytest.raises(SpecError) as caught:
        spec.check_size(height, width)
    assert str(caught.value) == (
        f"input size: got {height}x{width}, expected multiples of {multiple} (a ParNet with "
        f"{spec.streams} streams halves the image {spec.streams + 2} times). "
        "Resize or pad the image."
    )


@pytest.mark.parametrize(("streams", "multiple"), [(2, 16), (3, 32), (4, 64)])
def test_multiples_of_the_usual_networks(streams: int, multiple: int) -> None:
    spec = ModelSpec(planes=(4,) * (streams + 1), num_blocks=(1,) * (streams + 1), num_classes=1)
    assert spec.size_multiple == multiple


def test_the_48_trap_is_refused() -> None:
    with pytest.raises(SpecError, match="got 48x48, expected multiples of 32"):
        RELEASED["parnet-s"].check_size(48, 48)


@given(spec=specs())
def test_json_round_trip(spec: ModelSpec) -> None:
    assert ModelSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"planes": None}, "cannot read it: TypeError"),
        ({"planes": "1234"}, "cannot read it: TypeError"),
        ({"planes": [4.5, 6, 8, 12]}, "cannot read it: TypeError"),
        ({"num_classes": "5"}, "cannot read it: TypeError"),
        ({"num_classes": 1e400}, "cannot read it: TypeError"),
        ({"activation": ["silu"]}, "activation: got ['silu'], expected silu or relu."),
        ({"more": 1}, "missing or unknown: ['more']"),
        ({"planes": [4, 8]}, "got planes (4, 8) and blocks (2, 3, 2, 1), expected the same length"),
        ({"num_blocks": [2, 3, 2, 2]}, "and a last entry of 1."),
        ({"num_blocks": [2, 0, 2, 1]}, "got blocks (2, 0, 2, 1), expected 1 or more"),
        ({"num_blocks": [10**6, 3, 2, 1]}, "expected 1 or more, at most 4096 together, and a last"),
        ({"num_classes": 0}, "every width and the number of classes must be positive."),
        ({"in_channels": -1}, "every width and the number of classes must be positive."),
        ({"planes": [4, 6, 7, 12]}, "got an odd width 7, expected an even one"),
    ],
)
def test_what_cannot_be_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError) as caught:
        ModelSpec.from_json({**SPEC.to_json(), **change})
    assert message in str(caught.value)


def test_a_missing_key_is_named() -> None:
    data = SPEC.to_json()
    del data["planes"]
    with pytest.raises(SpecError, match=r"missing or unknown: \['planes'\]"):
        ModelSpec.from_json(data)
    with pytest.raises(SpecError, match="network description: cannot read it"):
        ModelSpec.from_json([])  # type: ignore[arg-type]


def test_odd_widths_are_legal_where_no_group_convolution_writes() -> None:
    """Of two streams the second is written by ``combine``; of three the first two are free."""
    ModelSpec(planes=(5, 7, 6, 9), num_blocks=(1,) * 4, num_classes=1)
    ModelSpec(planes=(5, 6, 9), num_blocks=(1,) * 3, num_classes=1)
    with pytest.raises(SpecError, match="odd width 7"):
        ModelSpec(planes=(5, 7, 9), num_blocks=(1,) * 3, num_classes=1)


def test_macs_are_those_of_the_fused_convolutions() -> None:
    """Counted a second time, from the weights and the positions that they are used at."""
    for spec in SPECS.values():
        side = 2 * spec.size_multiple
        with torch.device("meta"):
            tensors = fuse_network(ParNet(spec).state_dict(), spec).tensors
        total = 0
        for part in spec.parts:
            h = w = spec.tensors[part.inputs[0]].shape(side, side)[1]
            for block in part.blocks:
                h, w = h // block.stride, w // block.stride
                if block.kind != "fusion":
                    total += h * w * tensors[f"{block.name}.conv.weight"].numel()
                else:  # two groups of the interleaved channels, whatever form it was fused to
                    total += h * w * block.out_channels * 9 * block.in_channels
        assert sum(spec.macs(side, side).values()) == total


def test_spec_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        SPEC.num_classes = 7  # type: ignore[misc]
