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
from parnet_deploy.placement import Placement, Segment, check_placement, one, streams
from parnet_deploy.spec import IMAGE, LOGITS, ModelSpec
from tests.networks import SPEC, SPECS


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
    for placement in (one(SPECS[name], 2), streams(SPECS[name], (0, 1, 2))):
        assert Placement.from_json(json.loads(json.dumps(placement.to_json()))) == placement


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
