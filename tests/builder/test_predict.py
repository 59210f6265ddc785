"""The multiply-accumulate model: known figures, and what holds for any placement."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parnet_deploy.arithmetic import segment_macs
from parnet_deploy.builder.predict import best_possible, copied_bytes, predict
from parnet_deploy.input_size import InputSize
from parnet_deploy.placement import one, recompute, streams
from parnet_deploy.spec import RELEASED
from tests.runtime.runtime_toys import SPECS, fixed_size, random_placement

SPEC = RELEASED["parnet-s"]
SIZE = InputSize(low=(224, 224), high=(224, 224))


def test_parnet_s_at_224_can_gain_about_2_1_on_three_devices() -> None:
    """PARNET: 2222 of 4733 MMAC with gates and classifier; the model counts convolutions only."""
    bound = best_possible(SPEC, SIZE, 3)
    total = sum(SPEC.macs(224, 224).values())
    assert total / 1e6 == pytest.approx(4733, rel=1e-3)
    assert bound.ratio * total / 1e6 == pytest.approx(2222, rel=2e-3)
    assert bound.to_json()["speedup"] == pytest.approx(2.13, abs=0.01)
    assert bound.by == "path"
    assert bound.parts[0] == "stem0"
    assert bound.parts[-1] == "head"


def test_with_two_devices_their_number_decides() -> None:
    assert best_possible(SPEC, SIZE, 2).ratio == 0.5
    assert best_possible(SPEC, SIZE, 2).by == "devices"
    assert best_possible(SPEC, SIZE, 1).ratio == 1


@pytest.mark.parametrize("make", [streams, recompute])
def test_three_devices_reach_the_bound(make) -> None:
    found = predict(make(SPEC, (0, 1, 2)), SPEC, SIZE)
    assert found.ratio == best_possible(SPEC, SIZE, 3).ratio
    assert found.critical[-1] == "head"
    assert {"stream1", "stream2"} & set(found.critical)
    assert found.busy[2] == pytest.approx(1, rel=1e-3)  # stems, the last stream, the head
    assert found.busy[0] < found.busy[1] < 1


def test_one_device_gains_nothing_and_recomputing_on_it_costs() -> None:
    assert predict(one(SPEC), SPEC, SIZE).ratio == 1
    assert predict(streams(SPEC), SPEC, SIZE).ratio == 1
    parts = SPEC.macs(224, 224)
    again = 2 * parts["stem0"] + parts["stem1"]
    expected = 1 + again / sum(parts.values())
    assert predict(recompute(SPEC), SPEC, SIZE).ratio == pytest.approx(expected)


def test_what_crosses_is_counted_in_float32() -> None:
    """PARNET: 294 KiB and 147 KiB in float16 for the two that reach the head's device."""
    placement = recompute(SPEC, (0, 1, 2))
    assert [name for name, _, _ in placement.crossings] == ["d0", "d1"]
    assert copied_bytes(placement, SPEC, SIZE) == 2 * (294 + 147) * 1024
    assert copied_bytes(recompute(SPEC), SPEC, SIZE) == 0


@given(
    count=st.sampled_from(sorted(SPECS)),
    seed=st.integers(0, 2**32),
    devices=st.integers(1, 4),
    lanes=st.integers(1, 3),
    again=st.sampled_from([0.0, 0.4]),
)
def test_no_schedule_beats_the_bound_or_loses_work(count, seed, devices, lanes, again) -> None:
    spec, rng = SPECS[count], random.Random(seed)
    size = fixed_size(spec)
    placement = random_placement(spec, rng, devices, lanes, again)
    macs = segment_macs(placement, spec, *size.high)
    found = predict(placement, spec, size)
    assert found.ratio >= best_possible(spec, size, len(placement.devices)).ratio - 1e-12
    assert max(found.busy.values()) <= 1 + 1e-12
    assert sum(found.busy.values()) * found.path_macs == pytest.approx(sum(macs.values()))
    assert found.path_macs == sum(macs[name] for name in found.critical)  # it never idles
    assert set(found.critical) <= set(macs)
