"""The training form: equal to the authors' code stage by stage, and of the published size."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from parnet_deploy.export.fuse import fuse_network
from parnet_deploy.export.model import ParNet, interleave, shuffle_channels
from parnet_deploy.spec import RELEASED, ModelSpec
from tests.networks import SPECS, random_image, random_network

DATA = Path(__file__).parents[1] / "data"
GOLDEN = ModelSpec(planes=(8, 16, 32, 64), num_blocks=(5, 6, 6, 1), num_classes=1000)
TOLERANCE = 1e-5  # of the largest value
NOT_COUNTED = ("border.weight", "side.scale", "side.shift", "gate.bias")
PUBLISHED = {  # training form and fused convolution form in millions, GMAC at 224 x 224
    "parnet-s": (20.9, 19.1, 4.73),
    "parnet-m": (39.0, 35.6, 8.58),
    "parnet-l": (60.2, 54.9, 13.3),
    "parnet-xl": (93.2, 84.9, 20.7),
}


@pytest.fixture(scope="module")
def golden_io() -> dict[str, NDArray[Any]]:
    with np.load(DATA / "parnet_tiny_official_io.npz") as stored:
        return dict(stored)


@pytest.fixture(scope="module")
def golden_content() -> dict[str, Any]:
    with torch.serialization.safe_globals([argparse.Namespace]):
        content: dict[str, Any] = torch.load(
            DATA / "parnet_tiny_official.pth.tar", weights_only=True
        )
    return content


def golden_network(content: dict[str, Any], key: str) -> ParNet:
    network = ParNet(GOLDEN)
    state = {name.removeprefix("module."): tensor for name, tensor in content[key].items()}
    network.load_state_dict(state)  # strict: exactly the released names
    return network


def relative_error(got: Tensor, reference: NDArray[Any]) -> float:
    return float(np.abs(got.numpy() - reference).max() / np.abs(reference).max())


@pytest.mark.parametrize(
    ("key", "logits"), [("state_dict", "logits_model"), ("state_dict_ema", "logits_ema")]
)
def test_logits_are_those_of_the_authors_code(
    golden_content: dict[str, Any], golden_io: dict[str, NDArray[Any]], key: str, logits: str
) -> None:
    with torch.inference_mode():
        got = golden_network(golden_content, key)(torch.from_numpy(golden_io["x"]))
    assert relative_error(got, golden_io[logits]) <= TOLERANCE


def test_logits_in_float64_are_those_of_the_authors_code(
    golden_content: dict[str, Any], golden_io: dict[str, NDArray[Any]]
) -> None:
    network = golden_network(golden_content, "state_dict").double()
    with torch.inference_mode():
        got = network(torch.from_numpy(golden_io["x"]).double())
    assert relative_error(got, golden_io["logits_model_f64"]) <= 1e-12


def test_the_two_sets_of_weights_differ(golden_io: dict[str, NDArray[Any]]) -> None:
    """Otherwise the tests above could not tell them apart."""
    ema = torch.from_numpy(golden_io["logits_ema"])
    assert relative_error(ema, golden_io["logits_model"]) > 100 * TOLERANCE


def test_every_stage_is_that_of_the_authors_code(
    golden_content: dict[str, Any], golden_io: dict[str, NDArray[Any]]
) -> None:
    with np.load(DATA / "parnet_tiny_official_stages.npz") as stored:
        stages = dict(stored)
    network = golden_network(golden_content, "state_dict")
    seen: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Tensor) -> None:
            seen[name] = output

        return hook

    for name in stages:
        network.get_submodule(name).register_forward_hook(keep(name))
    with torch.inference_mode():
        network(torch.from_numpy(golden_io["x"]))
    errors = {name: relative_error(seen[name], stages[name]) for name in stages}
    assert len(errors) == 10
    assert max(errors.values()) <= TOLERANCE, errors


@pytest.mark.parametrize("name", RELEASED)
def test_published_size(name: str) -> None:
    spec = RELEASED[name]
    training, fused, gmacs = PUBLISHED[name]
    with torch.device("meta"):
        network = ParNet(spec)
    assert round(sum(p.numel() for p in network.parameters()) / 1e6, 1) == training
    tensors = fuse_network(network.state_dict(), spec).tensors
    # the published count is of convolutions, their biases, gates and the classifier
    counted = sum(t.numel() for n, t in tensors.items() if not n.endswith(NOT_COUNTED))
    assert round(counted / 1e6, 1) == fused
    assert float(f"{sum(spec.macs(224, 224).values()) / 1e9:.3g}") == gmacs


@pytest.mark.parametrize("name", SPECS)
def test_any_configuration_runs_at_its_legal_sizes(name: str) -> None:
    spec = SPECS[name]
    side = spec.size_multiple
    network = random_network(spec)
    assert not network.training
    with torch.inference_mode():
        logits = network(random_image(spec, 2, side, 2 * side))
    assert logits.shape == (2, spec.num_classes)
    assert bool(logits.isfinite().all())


def test_an_odd_map_has_no_answer_in_training_form() -> None:
    """Which is why the fused form, that would run there, has to refuse such a size."""
    spec = SPECS["three"]
    with pytest.raises(RuntimeError, match="size of tensor"), torch.inference_mode():
        random_network(spec)(random_image(spec, 1, 40, 40))


def test_channel_orders() -> None:
    a, b = torch.arange(4).view(1, 4, 1, 1), torch.arange(10, 14).view(1, 4, 1, 1)
    both = interleave(a, b)
    assert both.flatten().tolist() == [0, 10, 1, 11, 2, 12, 3, 13]
    assert shuffle_channels(both, 2).flatten().tolist() == [0, 2, 10, 12, 1, 3, 11, 13]
