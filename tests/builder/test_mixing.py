"""Mixed candidates: each engine on its fastest backend, neighbours joined, borders counted."""

from __future__ import annotations

from pathlib import Path

from parnet_deploy.builder.candidates import Candidate
from parnet_deploy.builder.mixing import CLEARLY_SHORTER, mix_chain, mix_lanes
from parnet_deploy.builder.planner import Built
from parnet_deploy.placement import check_placement, streams
from parnet_deploy.spec import RELEASED
from tests.runtime.runtime_toys import fixed_size, make_plan

SPEC = RELEASED["parnet-s"]
PARTS = [part.name for part in SPEC.parts]
SEGMENTS = [segment.name for segment in streams(SPEC).segments]


def times(names: list[str], **faster: dict[str, float]) -> dict[str, dict[str, float]]:
    """1 ms everywhere, but for what is named."""
    return {backend: {**dict.fromkeys(names, 1.0), **other} for backend, other in faster.items()}


def built_streams() -> Built:
    placement = streams(SPEC)
    candidate = Candidate(placement=placement, threads=2, backend="onnxruntime")
    plan = make_plan(placement, fixed_size(SPEC), threads=2)
    return Built(candidate=candidate, plan=plan, folder=Path())


def test_neighbours_on_one_backend_become_one_engine() -> None:
    spent = times(PARTS, openvino={}, ncnn={**dict.fromkeys(PARTS, 2.0), "stream0": 0.5})
    (candidate,) = mix_chain(SPEC, spent, "fp32", 2)
    check_placement(candidate.placement, SPEC)
    homes = {
        part: home
        for s, (_, home) in zip(candidate.placement.segments, candidate.backends, strict=True)
        for part in s.parts
    }
    assert {part for part, home in homes.items() if home == "ncnn"} == {"stream0"}
    at = PARTS.index("stream0")
    assert [s.parts for s in candidate.placement.segments] == [
        tuple(PARTS[:at]),
        ("stream0",),
        tuple(PARTS[at + 1 :]),
    ]
    assert all(segment.wide and segment.lane == 0 for segment in candidate.placement.segments)
    assert candidate.threads == 2


def test_a_backend_that_is_best_everywhere_is_no_mix() -> None:
    assert not mix_chain(SPEC, times(PARTS, openvino={}, mnn=dict.fromkeys(PARTS, 2.0)), "fp32", 2)
    assert not mix_chain(SPEC, {}, "fp32", 2)
    assert not mix_lanes([], {})


def test_a_gain_within_noise_does_not_change_the_backend() -> None:
    slower = dict.fromkeys(PARTS, 2.0)
    little = {**slower, "stream1": CLEARLY_SHORTER + 0.01}
    assert not mix_chain(SPEC, times(PARTS, openvino={}, ncnn=little), "fp32", 2)
    enough = {**slower, "stream1": CLEARLY_SHORTER - 0.01}
    assert mix_chain(SPEC, times(PARTS, openvino={}, ncnn=enough), "fp32", 2)


def test_engines_side_by_side_keep_their_lanes_and_cores() -> None:
    slower = {**dict.fromkeys(SEGMENTS, 2.0), "stream0": 0.5, "stream1": 0.5}
    item = built_streams()
    (candidate,) = mix_lanes([item], times(SEGMENTS, openvino={}, ncnn=slower))
    assert candidate.placement == item.candidate.placement
    assert candidate.threads == 2
    homes = dict(candidate.backends)
    assert {name for name, home in homes.items() if home == "ncnn"} == {"stream0", "stream1"}
    assert "ncnn: stream0, stream1" in candidate.label


def test_conversions_are_tensors_that_change_backends() -> None:
    item = built_streams()
    alone = dict.fromkeys(SEGMENTS, "openvino")
    for changed, count in (((), 0), (("stream1",), 2), (("head",), 2), (("stem0",), 1)):
        homes = {**alone, **dict.fromkeys(changed, "ncnn")}
        candidate = Candidate(
            placement=item.candidate.placement, backend="mixed", backends=tuple(homes.items())
        )
        assert candidate.conversions == count, changed
        assert candidate.to_json()["conversions"] == count
