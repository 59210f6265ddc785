"""Health figures: right on known weights, and plain JSON whatever the weights are."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from parnet_deploy.export.fuse import FusedNetwork, fuse_network
from parnet_deploy.export.health import WeightHealth, measure_batch_norms, measure_weights
from tests.networks import SPEC, random_state


def measure(tensor: Tensor) -> WeightHealth:
    (figures,) = measure_weights(FusedNetwork(spec=SPEC, tensors={"x.conv.weight": tensor}))
    json.dumps(figures.to_json(), allow_nan=False)
    return figures


def test_every_weight_and_every_batch_norm_is_measured() -> None:
    state = random_state(SPEC)
    network = fuse_network(state, SPEC)
    weights = {figures.name: figures for figures in measure_weights(network)}
    assert set(weights) == {
        n for n in network.tensors if n.endswith(".weight") and "border" not in n
    }
    name = "combine.3.conv.weight"
    assert weights[name].values == network.tensors[name].numel()
    norms = list(measure_batch_norms(state))
    assert len(norms) == sum(name.endswith("running_var") for name in state)
    first = next(norm for norm in norms if norm.name == "combine.0.b1")
    variance, gamma = (state[f"combine.0.b1.{f}"].double() for f in ("running_var", "weight"))
    assert first.min_variance == pytest.approx(float(variance.min()))
    assert first.max_gain == pytest.approx(float((gamma / (variance + 1e-5).sqrt()).max()))


def test_figures_of_normal_weights() -> None:
    values = torch.randn(64, 64, 3, 3, generator=torch.Generator().manual_seed(0)).double()
    found = measure(values)
    assert found.kurtosis == pytest.approx(3, abs=0.1)
    assert found.max_abs == float(values.abs().max())
    assert found.max_over_std == pytest.approx(float(values.abs().max() / values.std()), rel=1e-3)
    channels = values.abs().flatten(1).amax(1)
    assert found.range_ratio == pytest.approx(float(channels.max() / channels.median()))
    assert found.warning is None


def test_measuring_does_not_change_the_weights() -> None:
    values = torch.randn(4, 4, 3, 3).double()
    before = values.clone()
    measure(values)
    assert torch.equal(values, before)


def test_float16_counts() -> None:
    values = torch.tensor([[70000.0], [1.0], [2.0**-15], [2.0**-26], [0.0]])
    found = measure(values)
    counts = (found.float16_overflow, found.float16_subnormal, found.float16_to_zero)
    assert counts == (1, 1, 1)
    assert found.warning == "x.conv.weight: 1 values overflow float16"
    cast = values.half().flatten()
    assert (int(cast.isinf().sum()), int((cast == 0).sum())) == (1, 2)


def test_range_ratio_warns() -> None:
    found = measure(torch.tensor([[1.0], [1.0], [20.0]]))
    assert found.range_ratio == 20
    assert found.warning == "x.conv.weight: channel range ratio 20.0 is hard for INT8"


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.zeros(4, 4, 3, 3),
        lambda: torch.cat((torch.zeros(3, 4), torch.ones(1, 4))),
        lambda: torch.full((4, 4), 1e-45),
        lambda: torch.full((4, 4), 3e38),
        lambda: torch.ones(1, 1),
    ],
    ids=["all zero", "most channels zero", "smallest", "largest", "one value"],
)
def test_extreme_weights_still_give_a_report(make: Callable[[], Tensor]) -> None:
    """Pruned channels are no reason to fail: a report holds no infinity."""
    assert measure(make()).range_ratio == 1
