"""Fused equals trained, for every kind of block and network, whatever the statistics are."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from parnet_deploy.errors import SpecError
from parnet_deploy.export.fuse import (
    FusedNetwork,
    bias_map,
    fuse_block,
    fuse_network,
    keeps_shuffle,
    reads_unshuffled,
    run_block,
    run_network,
    unshuffle,
)
from parnet_deploy.export.model import ParNet, shuffle_channels
from parnet_deploy.export.prove import training_block
from parnet_deploy.spec import IMAGE, LOGITS, Activation, BlockSpec, ModelSpec
from tests.networks import SPEC, SPECS, State, random_image, random_network, random_state

EXACT = 1e-12
SINGLE = 1e-5

BatchNorms = st.sampled_from(["usual", "tiny variances", "zero variances", "zero gammas", "huge"])


def spec_with(a: int, b: int, activation: Activation) -> ModelSpec:
    """Blocks of any kind between ``2 a`` or ``a`` and ``2 b`` or ``b`` channels."""
    return ModelSpec(
        planes=(a, b, 2 * a, 2 * b, b), num_blocks=(2, 2, 2, 1, 1), num_classes=2,
        activation=activation,
    )  # fmt: skip


def stress(state: State, how: str) -> State:
    """Statistics that training gives now and then."""
    result = {}
    for name, tensor in state.items():
        if how == "tiny variances" and name.endswith("running_var"):
            tensor = tensor * 1e-9
        elif how == "zero variances" and name.endswith("running_var"):
            tensor = torch.zeros_like(tensor)
        elif how == "zero gammas" and ".bn.weight" in name:
            tensor = torch.where(tensor > tensor.median(), tensor, 0)
        elif how == "huge" and name.endswith(("running_mean", "bias")):
            tensor = tensor * 100
        result[name] = tensor
    return result


def block_inputs(block: BlockSpec, seed: int, dtype: torch.dtype) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    shape = (2, block.in_channels, 4, 6)
    return tuple(
        torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)
        for _ in range(2 if block.kind == "fusion" else 1)
    )


def relative(got: Tensor, reference: Tensor) -> float:
    return float((got - reference).abs().max() / reference.abs().max().clamp(min=1e-30))


def fused_against_training(
    state: State, block: BlockSpec, spec: ModelSpec, inputs: tuple[Tensor, ...]
) -> float:
    dtype = inputs[0].dtype
    reference = training_block(state, block, spec, dtype)(inputs)
    if reads_unshuffled(block, spec):
        inputs = tuple(x[:, unshuffle(x.shape[1])] for x in inputs)
    tensors = {name: t.to(dtype) for name, t in fuse_block(state, block, spec).items()}
    got = run_block(block, tensors, inputs, spec)
    if block.kind == "fusion" and not keeps_shuffle(block, spec):
        got = shuffle_channels(got, 2)
    return relative(got, reference)


@given(
    a=st.integers(1, 7),
    b=st.integers(1, 7),
    activation=st.sampled_from(["silu", "relu"]),
    how=BatchNorms,
    seed=st.integers(0, 2**32),
    data=st.data(),
)
@settings(max_examples=120)
def test_every_block_fused_is_the_trained_one(
    a: int, b: int, activation: Activation, how: str, seed: int, data: st.DataObject
) -> None:
    spec = spec_with(a, b, activation)
    block = data.draw(st.sampled_from(spec.blocks), label="block")
    state = stress(random_state(spec, seed), how)
    with torch.inference_mode():
        double = block_inputs(block, seed, torch.float64)
        assert fused_against_training(state, block, spec, double) <= EXACT
        if how == "usual":
            single = block_inputs(block, seed, torch.float32)
            assert fused_against_training(state, block, spec, single) <= SINGLE


def test_the_property_covers_every_kind() -> None:
    """Odd and even channels into one and two groups, both strides, and the last two of the head."""
    odd, even = spec_with(3, 5, "silu"), spec_with(2, 4, "silu")
    kinds = {(b.kind, b.in_channels % 2, b.stride) for s in (odd, even) for b in s.blocks}
    wanted = {("residual", 0, 1), ("residual", 1, 1), ("down", 0, 2), ("down", 1, 2)}
    assert kinds >= wanted | {("fusion", 0, 1), ("fusion", 0, 2), ("fusion", 1, 2)}
    assert sum(reads_unshuffled(b, odd) for b in odd.blocks) == 1
    assert [b.name for b in odd.blocks if keeps_shuffle(b, odd)] == [
        "downsamples_2.1.2",
        "downsamples_2.2.2",
    ]


@pytest.mark.parametrize("activation", ["silu", "relu"])
@pytest.mark.parametrize("name", SPECS)
def test_whole_networks(name: str, activation: Activation) -> None:
    spec = dataclasses.replace(SPECS[name], activation=activation)
    side = spec.size_multiple
    network = random_network(spec)
    state = network.state_dict()
    image = random_image(spec, 2, 2 * side, side)
    with torch.inference_mode():
        single = run_network(fuse_network(state, spec), image)[LOGITS]
        assert relative(single, network(image)) <= SINGLE
        double = run_network(fuse_network(state, spec, torch.float64), image.double())[LOGITS]
        assert relative(double, network.double()(image.double())) <= EXACT


def test_every_tensor_between_parts_is_the_trained_one() -> None:
    """Also the shapes that the specification says, at a size that is not square."""
    network = random_network(SPEC).double()
    image = random_image(SPEC, 1, 32, 96).double()
    with torch.inference_mode():
        values = run_network(fuse_network(network.state_dict(), SPEC, torch.float64), image)
        x0 = network.inits[0](image)
        assert relative(values["x0"], x0) <= EXACT
        assert relative(values["d0"], network.downsamples_2[0](network.streams[0](x0))) <= EXACT
    assert {name: tuple(t.shape) for name, t in values.items()} == {
        name: (1, *tensor.shape(32, 96)) for name, tensor in SPEC.tensors.items()
    }
    assert values[IMAGE] is image


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_pure_and_repeatable(dtype: torch.dtype) -> None:
    """The source keeps its bits, twice gives the same bits, and no memory is shared."""
    state = {n: t.to(dtype) for n, t in random_state(SPEC).items()}
    before = {name: tensor.clone() for name, tensor in state.items()}
    first, second = (fuse_network(state, SPEC, dtype) for _ in range(2))
    assert all(torch.equal(before[name], state[name]) for name in state)
    assert first.tensors.keys() == second.tensors.keys()
    assert all(torch.equal(t, second.tensors[name]) for name, t in first.tensors.items())
    sources = {t.untyped_storage().data_ptr() for t in state.values()}
    results = [t.untyped_storage().data_ptr() for t in first.tensors.values()]
    assert not sources & set(results)
    assert len(set(results)) == len(results)
    assert all(t.is_contiguous() and t.dtype == dtype for t in first.tensors.values())


def test_fusing_leaves_a_module_untouched() -> None:
    network = random_network(SPEC)
    image = random_image(SPEC)
    with torch.inference_mode():
        before = network(image)
        fuse_network(network.state_dict(), SPEC)
        assert torch.equal(network(image), before)


def test_bias_map_has_a_corner_an_edge_and_an_interior() -> None:
    """A constant bias would be wrong at the border: that is why there is a map."""
    block = next(b for b in SPEC.blocks if b.kind == "fusion" and b.stride == 1)
    fields = fuse_block(random_state(SPEC), block, SPEC)
    border = bias_map(fields, 5, 6, stride=1)
    assert border.shape == (1, block.out_channels, 5, 6)
    interior = border[:, :, 1:-1, 1:-1]
    flat = fields["conv.bias"] + fields["border.weight"].sum((1, 2, 3))
    torch.testing.assert_close(interior, flat.view(1, -1, 1, 1).expand_as(interior))
    assert float((border[:, :, 0] - border[:, :, 1]).abs().max()) > 0.01


def test_zero_shifts_need_no_map() -> None:
    state = random_state(SPEC)
    block = next(b for b in SPEC.blocks if b.kind == "fusion")
    for side in ("b1", "b2"):
        for field in ("bias", "running_mean"):
            state[f"{block.norm}.{side}.{field}"].zero_()
    assert not fuse_block(state, block, SPEC)["border.weight"].any()


@given(half=st.integers(1, 9))
def test_unshuffle_undoes_the_shuffle(half: int) -> None:
    """For the kernel after it: reading unshuffled channels gives what the shuffled ones gave."""
    x, weight = torch.randn(1, 2 * half, 3, 3), torch.randn(4, 2 * half, 1, 1)
    torch.testing.assert_close(
        F.conv2d(x, weight[:, unshuffle(2 * half)]), F.conv2d(shuffle_channels(x, 2), weight)
    )


def test_the_48_trap() -> None:
    """Both forms run at 48 x 48 and disagree, which is why the size is refused."""
    network = random_network(SPEC)
    fused = fuse_network(network.state_dict(), SPEC)
    image = random_image(SPEC, 1, 48, 48)
    with torch.inference_mode():
        assert relative(run_network(fused, image)[LOGITS], network(image)) > 1e-3
    with pytest.raises(SpecError, match=r"input size: got 48x48, expected multiples of 32"):
        SPEC.check_size(48, 48)


def test_block_view_holds_only_its_own_fields() -> None:
    """``streams.0.1`` must not see ``streams.0.10``."""
    tensors = {"streams.0.1.a": torch.zeros(1), "streams.0.10.a": torch.ones(1)}
    network = FusedNetwork(spec=SPEC, tensors=tensors)
    assert list(network.block("streams.0.1")) == ["a"]
    assert not network.block("streams.0.1")["a"].any()


def test_meta_tensors_can_be_fused() -> None:
    """Counting needs no memory: nothing in the algebra reads a value."""
    with torch.device("meta"):
        network = ParNet(SPEC)
    tensors = fuse_network(network.state_dict(), SPEC).tensors
    real = fuse_network(random_state(SPEC), SPEC).tensors
    assert {n: t.shape for n, t in tensors.items()} == {n: t.shape for n, t in real.items()}
