"""Placements: the ready-made ones are valid for every network, and each mistake is refused."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parnet_deploy.errors import SpecError
from parnet_deploy.placement import (
    Placement,
    Segment,
    chain,
    check_placement,
    one,
    recompute,
    remap,
    streams,
)
from parnet_deploy.spec import IMAGE, LOGITS, RELEASED, ModelSpec
from tests.networks import SPEC, SPECS


@given(cut=st.integers(1, 8))
def test_a_chain_is_valid_for_any_cut(cut: int) -> None:
    names = [part.name for part in RELEASED["parnet-s"].parts]
    groups = [group for group in (names[:cut], names[cut:]) if group]
    placement = chain(RELEASED["parnet-s"], groups)
    check_placement(placement, RELEASED["parnet-s"])
    assert [s.parts for s in placement.segments] == [tuple(group) for group in groups]
    assert all(s.wide and s.lane == 0 for s in placement.segments)


def network(count: int) -> ModelSpec:
    return ModelSpec(planes=(4,) * (count + 1), num_blocks=(2,) * count + (1,), num_classes=2)


@given(count=st.integers(2, 6), devices=st.lists(st.integers(0, 3), min_size=1, max_size=5))
def test_ready_made_placements_are_valid(count: int, devices: list[int]) -> None:
    spec = network(count)
    for placement in (one(spec, devices[0]), streams(spec, devices)):
        check_placement(placement, spec)
        covered = [name for segment in placement.segments for name in segment.parts]
        assert sorted(covered) == sorted(part.name for part in spec.parts)  # each exactly once
        assert set(placement.devices) <= set(devices)


@given(count=st.integers(2, 6), devices=st.lists(st.integers(0, 3), min_size=1, max_size=5))
def test_a_stream_has_its_device_and_its_lane(count: int, devices: list[int]) -> None:
    spec = network(count)
    placement = streams(spec, devices)
    homes = {name: s for s in placement.segments for name in s.parts}
    last = count - 1
    main = devices[last % len(devices)]
    for i in range(count):
        assert homes[f"stream{i}"].device == devices[i % len(devices)]
        assert homes[f"stream{i}"].lane == (0 if i == last else i + 1)
        assert (homes[f"stem{i}"].device, homes[f"stem{i}"].lane) == (main, 0)
    assert (homes["head"].device, homes["head"].lane) == (main, 0)
    assert homes["head"].wide
    assert homes["stem0"].wide
    assert not homes["stream0"].wide


@given(count=st.integers(2, 5), devices=st.lists(st.integers(0, 3), min_size=1, max_size=5))
def test_crossings_are_exactly_what_another_device_reads(count: int, devices: list[int]) -> None:
    placement = streams(network(count), devices)
    home = {name: s.device for s in placement.segments for name in s.outputs}
    expected = {
        (name, home[name], segment.device)
        for segment in placement.segments
        for name in segment.inputs
        if name != IMAGE and home[name] != segment.device
    }
    assert set(placement.crossings) == expected
    assert (len(set(devices[:count])) > 1) == bool(expected)


@given(count=st.integers(2, 6))
def test_one_reads_the_image_and_writes_the_logits(count: int) -> None:
    (segment,) = one(network(count)).segments
    assert (segment.inputs, segment.outputs) == ((IMAGE,), (LOGITS,))


@pytest.mark.parametrize("name", SPECS)
def test_json_round_trip(name: str) -> None:
    makers = (streams, recompute)
    for placement in (one(SPECS[name], 2), *(make(SPECS[name], (0, 1, 2)) for make in makers)):
        assert Placement.from_json(json.loads(json.dumps(placement.to_json()))) == placement


@given(count=st.integers(2, 6), devices=st.lists(st.integers(0, 3), min_size=1, max_size=5))
def test_recompute_gives_each_stream_its_stems_device_and_lane(
    count: int, devices: list[int]
) -> None:
    spec = network(count)
    placement = recompute(spec, devices)
    check_placement(placement, spec)
    segments = {segment.name: segment for segment in placement.segments}
    for i in range(count):
        segment = segments[f"stream{i}"]
        stems = [name for name in segment.parts if name.startswith("stem")]
        assert stems == [f"stem{k}" for k in range(i + 1)]
        assert segment.inputs == (IMAGE,)
        assert segment.device == devices[i % len(devices)]
    lanes = [segments[f"stream{i}"].lane for i in range(count)]
    assert len(set(lanes)) == count  # so that any number of them may share a device
    assert not [name for name, _, _ in placement.crossings if name.startswith("x")]


def test_the_head_follows_the_engine_with_most_arithmetic() -> None:
    placement = recompute(RELEASED["parnet-s"], (3, 4, 5))
    homes = {segment.name: (segment.device, segment.lane) for segment in placement.segments}
    assert homes["head"] == homes["stream2"] == (5, 0)
    assert homes["fusion1"] == homes["stream1"] == (4, 2)
    first = dataclasses.replace(RELEASED["parnet-s"], num_blocks=(12, 2, 2, 1))
    homes = {s.name: (s.device, s.lane) for s in recompute(first, (3, 4, 5)).segments}
    assert homes["head"] == homes["stream0"] == (3, 0)


class TestRemap:
    def test_nothing_changes_without_a_mapping(self) -> None:
        assert remap(GOOD, {}) == GOOD

    @given(
        count=st.integers(2, 5),
        devices=st.lists(st.integers(0, 3), min_size=1, max_size=5),
        targets=st.lists(st.integers(0, 5), min_size=4, max_size=4),
        anew=st.booleans(),
    )
    def test_lanes_stay_apart_and_the_network_stays_the_same(
        self, count: int, devices: list[int], targets: list[int], anew: bool
    ) -> None:
        spec = network(count)
        placement = (recompute if anew else streams)(spec, devices)
        mapping = {old: targets[old] for old in placement.devices}
        moved = remap(placement, mapping)
        check_placement(moved, spec)
        pairs = list(zip(placement.segments, moved.segments, strict=True))
        for old, new in pairs:
            assert new.device == mapping[old.device]
            assert dataclasses.replace(new, device=old.device, lane=old.lane) == old
        before = {(old.device, old.lane) for old, _ in pairs}
        assert len({(new.device, new.lane) for _, new in pairs}) == len(before)
        homes = {((o.device, o.lane), (n.device, n.lane)) for o, n in pairs}
        assert len(homes) == len(before)  # a lane is moved as a whole

    def test_a_lost_device_gives_its_lanes_to_one_that_keeps_its_own(self) -> None:
        moved = remap(streams(SPEC, (0, 1, 2)), {0: 2, 1: 2})
        homes = {s.name: (s.device, s.lane) for s in moved.segments}
        assert moved.devices == (2,)
        assert homes["head"] == (2, 0)
        assert len({homes["stream0"], homes["stream1"], homes["stream2"]}) == 3

    def test_back_and_forth(self) -> None:
        assert remap(remap(GOOD, {0: 4}), {4: 0}) == GOOD


def computes(placement: Placement, spec: ModelSpec) -> bool:
    """An independent look: carry out the segments on names, with nothing but what they declare."""
    parts = {part.name: part for part in spec.parts}
    there = {IMAGE}
    for segment in placement.segments:
        inside, todo, useful = set(segment.inputs), set(segment.parts), set[str]()
        if not todo or not todo <= set(parts) or not set(segment.inputs) <= there:
            return False
        while ready := [name for name in todo if set(parts[name].inputs) <= inside]:
            todo -= set(ready)
            inside |= {parts[name].output for name in ready}
        made = {parts[name].output for name in segment.parts}
        if todo or not set(segment.outputs) <= made or set(segment.outputs) & there:
            return False
        useful = set(segment.outputs)
        for name in [part.name for part in reversed(spec.parts) if part.name in segment.parts]:
            if parts[name].output not in useful:
                return False
            useful |= set(parts[name].inputs)
        if set(segment.inputs) - useful or set(segment.inputs) & made:
            return False
        there |= set(segment.outputs)
    covered = {name for segment in placement.segments for name in segment.parts}
    return LOGITS in there and covered == set(parts)


NAMES = [part.name for part in SPEC.parts]
TENSORS = [IMAGE, *(part.output for part in SPEC.parts)]


@given(
    anew=st.booleans(),
    edits=st.lists(
        st.tuples(
            st.sampled_from(["parts", "inputs", "outputs", "swap", "drop"]),
            st.integers(0, 9),
            st.integers(0, 9),
        ),
        max_size=3,
    ),
)
def test_exactly_the_placements_that_compute_the_network_are_accepted(
    anew: bool, edits: list[tuple[str, int, int]]
) -> None:
    segments = list((recompute if anew else streams)(SPEC, (0, 1)).segments)
    for what, at, choice in edits:
        i, j = at % len(segments), choice % len(segments)
        if what == "swap":
            segments[i], segments[j] = segments[j], segments[i]
        elif what == "drop" and len(segments) > 1:
            del segments[i]
        elif what in ("parts", "inputs", "outputs"):
            pool = NAMES if what == "parts" else TENSORS
            values = getattr(segments[i], what)
            name = pool[choice % len(pool)]
            values = tuple(v for v in values if v != name) if name in values else (*values, name)
            segments[i] = dataclasses.replace(segments[i], **{what: values})
    placement = Placement(name="edited", segments=tuple(segments))
    if computes(placement, SPEC):
        check_placement(placement, SPEC)
    else:
        with pytest.raises(SpecError):
            check_placement(placement, SPEC)


GOOD = streams(SPEC)
INDEX = {segment.name: i for i, segment in enumerate(GOOD.segments)}


def altered(name: str, **change: Any) -> Placement:
    segments = list(GOOD.segments)
    segments[INDEX[name]] = dataclasses.replace(segments[INDEX[name]], **change)
    return Placement(name="x", segments=tuple(segments))


def without(name: str) -> Placement:
    return Placement(name="x", segments=tuple(s for s in GOOD.segments if s.name != name))


def moved(name: str, to: int) -> Placement:
    segments = [s for s in GOOD.segments if s.name != name]
    segments.insert(to, GOOD.segments[INDEX[name]])
    return Placement(name="x", segments=tuple(segments))


def with_more(*more: Segment) -> Placement:
    return Placement(name="x", segments=(*GOOD.segments, *more))


WRONG: dict[str, tuple[Callable[[], Placement], str]] = {
    "empty": (
        lambda: Placement(name="x", segments=()),
        "placement x: parts ['fusion0',",
    ),
    "unknown part": (
        lambda: altered("head", parts=("tail",)),
        "segment head: got parts ('tail',), expected some of ['fusion0',",
    ),
    "no part": (lambda: altered("head", parts=()), "segment head: got parts (), expected some of"),
    "wrong input": (
        lambda: altered("head", inputs=("y2", "d0")),
        "segment head: got ('y2', 'd0') -> ('logits',), expected ('d1', 'y2') -> some of",
    ),
    "input left out": (lambda: altered("head", inputs=("y2",)), "got ('y2',) -> ('logits',)"),
    "input too many": (
        lambda: altered("head", inputs=("d1", "image", "y2")),
        "got ('d1', 'image', 'y2') -> ('logits',)",
    ),
    "output of another": (
        lambda: altered("head", outputs=("logits", "y2")),
        "-> ('logits', 'y2'), expected ('d1', 'y2') -> some of ('logits',).",
    ),
    "output left out": (
        lambda: altered("stem0", outputs=()),
        "segment stream0: reads ['x0'], which no earlier segment writes.",
    ),
    "too early": (lambda: moved("head", 2), "segment head: reads ['d1', 'y2'], which no earlier"),
    "part left out": (lambda: without("head"), "placement x: parts ['head'] are in no segment."),
    "producer left out": (lambda: without("fusion1"), "segment head: reads ['d1'], which no"),
    "no logits": (
        lambda: altered("head", outputs=()),
        "placement x: no segment writes the logits.",
    ),
    "two producers": (
        lambda: with_more(dataclasses.replace(GOOD.segments[INDEX["head"]], name="again")),
        "segment again: writes ['logits'], which another segment writes too.",
    ),
    "same name": (
        lambda: with_more(GOOD.segments[INDEX["head"]]),
        "'head', 'head'), expected each only once.",
    ),
    "part twice": (
        lambda: altered("head", parts=("head", "head")),
        "segment head: got parts ('head', 'head'), expected each only once.",
    ),
    "input twice": (
        lambda: altered("head", inputs=("d1", "d1", "y2")),
        "segment head: got inputs ('d1', 'd1', 'y2'), expected each only once.",
    ),
    "output twice": (
        lambda: altered("head", outputs=("logits", "logits")),
        "segment head: got outputs ('logits', 'logits'), expected each only once.",
    ),
    "a part for nothing": (
        lambda: altered("head", parts=("stem0", "head"), inputs=("d1", "image", "y2")),
        "segment head: got parts ['stem0'] that none of its outputs ('logits',) needs",
    ),
    "a circle inside": (
        lambda: Placement(
            name="x",
            segments=(
                Segment(
                    name="s", parts=("stem0", "fusion0"), inputs=("image", "y0"), outputs=("x0",)
                ),
            ),
        ),
        "segment s: reads ['y0'], which no earlier segment writes.",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_placement_is_refused(what: str) -> None:
    make, message = WRONG[what]
    with pytest.raises(SpecError) as caught:
        check_placement(make(), SPEC)
    assert str(caught.value).startswith("placement x")
    assert message in str(caught.value)


def test_a_placement_of_another_network_is_refused() -> None:
    with pytest.raises(SpecError):
        check_placement(streams(network(4)), network(3))
    with pytest.raises(SpecError):
        check_placement(streams(network(3)), network(4))


def test_stems_may_be_computed_twice() -> None:
    """As the authors' script does: each stream with stems of its own, of which one is published."""
    repeated = Segment(
        name="stream0", parts=("stem0", "stream0", "fusion0"), inputs=("image",), outputs=("d0",),
        lane=1,
    )  # fmt: skip
    segments = tuple(repeated if s.name == "stream0" else s for s in GOOD.segments)
    check_placement(Placement(name="x", segments=segments), SPEC)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data.pop("name"),
        lambda data: data.update(more=1),
        lambda data: data.update(segments=None),
        lambda data: data.update(segments=["x"]),
        lambda data: data["segments"][0].pop("lane"),
        lambda data: data["segments"][0].update(more=1),
        lambda data: data["segments"][0].update(device="0"),
        lambda data: data["segments"][0].update(lane=0.5),
        lambda data: data["segments"][0].update(parts=None),
        lambda data: data["segments"][0].update(parts="stem0"),
        lambda data: data["segments"][0].update(parts=[["stem0"]]),
        lambda data: data["segments"][0].update(inputs=[{}]),
        lambda data: data["segments"][0].update(outputs=[1]),
        lambda data: data["segments"][0].update(device=-1),
        lambda data: data["segments"][0].update(device=10**30),
        lambda data: data["segments"][0].update(lane=True),
        lambda data: data["segments"][0].update(wide=1),
        lambda data: data["segments"][0].update(name=7),
        lambda data: data.update(name=None),
    ],
)
def test_json_that_is_no_placement(spoil: Callable[[Any], Any]) -> None:
    data = json.loads(json.dumps(GOOD.to_json()))
    spoil(data)
    with pytest.raises(SpecError, match="placement: cannot read it"):
        Placement.from_json(data)
