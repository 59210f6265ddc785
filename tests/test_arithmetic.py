"""Costs of segments, and what waits behind each."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parnet_deploy.arithmetic import direct_needs, segment_macs, work_behind
from parnet_deploy.placement import one, recompute, streams
from parnet_deploy.spec import RELEASED

SPEC = RELEASED["parnet-s"]


def test_a_part_counts_in_each_segment_that_computes_it() -> None:
    parts = SPEC.macs(224, 224)
    stems = [parts["stem0"], parts["stem1"], parts["stem2"]]
    whole = segment_macs(one(SPEC), SPEC, 224, 224)
    anew = segment_macs(recompute(SPEC, (0, 1, 2)), SPEC, 224, 224)
    assert whole == {"all": sum(parts.values())}
    assert sum(anew.values()) == whole["all"] + 2 * stems[0] + stems[1]
    assert anew["stream2"] == sum(stems) + parts["stream2"]


def test_without_a_size_the_smallest_legal_one_counts() -> None:
    small = segment_macs(one(SPEC), SPEC)
    assert small == segment_macs(one(SPEC), SPEC, 32, 32)


def test_a_segment_needs_its_producers_and_the_one_before_in_its_lane() -> None:
    needs = direct_needs(streams(SPEC, (0, 1, 2)))
    assert needs["stem0"] == ()
    assert needs["stem1"] == ("stem0",)  # both: data and lane
    assert needs["stream0"] == ("stem0",)
    assert needs["stream2"] == ("stem1",)
    assert needs["fusion1"] == ("stream1", "stream0")
    assert set(needs["head"]) == {"stream2", "fusion1"}


@given(name=st.sampled_from(sorted(RELEASED)), devices=st.integers(1, 3), anew=st.booleans())
def test_what_is_behind_a_segment_holds_the_longest_way_to_the_end(
    name: str, devices: int, anew: bool
) -> None:
    spec = RELEASED[name]
    placement = (recompute if anew else streams)(spec, range(devices))
    macs = segment_macs(placement, spec, 224, 224)
    needs = direct_needs(placement)

    def longest(segment: str) -> int:
        after = [other for other, before in needs.items() if segment in before]
        return macs[segment] + max(map(longest, after), default=0)

    assert work_behind(placement, macs) == {segment: longest(segment) for segment in macs}


@pytest.mark.parametrize("make", [streams, recompute])
def test_the_longest_way_through_three_devices_is_the_critical_path(make) -> None:
    placement = make(SPEC, (0, 1, 2))
    macs = segment_macs(placement, SPEC, 224, 224)
    behind = work_behind(placement, macs)
    assert max(behind.values()) / 1e6 == pytest.approx(2222, rel=2e-3)  # with gates, classifier
