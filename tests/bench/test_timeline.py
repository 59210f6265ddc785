"""Timelines of simulated calls, whose times are known."""

from __future__ import annotations

import json
import random
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parnet_deploy.arithmetic import segment_macs
from parnet_deploy.bench.timeline import Timeline, direct_sources, read_timeline, trace_events
from parnet_deploy.bench.timeline_svg import draw_timeline, time_text
from parnet_deploy.builder.predict import predict
from parnet_deploy.errors import BackendError
from parnet_deploy.placement import Placement, one, recompute, streams
from parnet_deploy.runtime.device import TimelineEntry
from parnet_deploy.runtime.fake.options import FakeOptions, FaultPlan
from parnet_deploy.spec import ModelSpec
from tests.runtime.runtime_toys import (
    PLACEMENTS,
    SPECS,
    fake_executor,
    fixed_size,
    images,
    random_placement,
    run,
)

SPEC = SPECS[3]
EVEN = ModelSpec(planes=(8, 16, 32, 64), num_blocks=(5, 6, 6, 1), num_classes=4)
"""Streams of about equal cost, as in the released networks."""

ARITHMETIC = FakeOptions(launch_us=0.0, bytes_per_us=1e15, macs_per_us=1.0)
"""Copies and launches are free: what is left is what ``predict`` counts."""


def traced(
    placement: Placement,
    options: FakeOptions | None = None,
    *,
    calls: int = 3,
    warm_up: int = 2,
    spec: ModelSpec = SPEC,
) -> Timeline:
    executor = fake_executor(spec, placement, options)
    for seed in range(warm_up + calls):
        run(executor, spec, images(spec, seed=seed))
    timeline = read_timeline(executor.timeline(), executor.program, calls=calls)
    executor.close()
    return timeline


@pytest.mark.parametrize("make", [streams, recompute])
def test_three_devices_overlap_as_much_as_was_predicted(make) -> None:
    placement = make(EVEN, (0, 1, 2))
    size = fixed_size(EVEN)
    expected = predict(placement, EVEN, size)
    timeline = traced(placement, ARITHMETIC, spec=EVEN)
    call = timeline.typical
    assert timeline.simulated
    assert call.wall_us == pytest.approx(expected.path_macs, rel=1e-6)
    assert call.overlap == pytest.approx(sum(expected.busy.values()), rel=1e-6)
    assert call.overlap > 1.7
    engines = tuple(span.name for span in call.critical if span.kind == "engine")
    macs = segment_macs(placement, EVEN, *size.high)
    assert sum(macs[name] for name in engines) == pytest.approx(expected.path_macs)


def test_one_engine_overlaps_nothing() -> None:
    call = traced(one(SPEC)).typical
    assert [span.name for span in call.critical] == ["image in", "all", "logits out"]
    assert call.overlap == pytest.approx(1)
    assert call.critical_split()["launching_us"] == pytest.approx(0)


def test_a_slow_engine_is_on_the_critical_path_and_others_wait_for_it() -> None:
    slow = FakeOptions(faults=FaultPlan(slow_us={"stream0": 1e4}))
    call = traced(streams(SPEC, (0, 1, 2)), slow).typical
    assert "stream0" in [span.name for span in call.critical]
    main = next(times for times in call.lane_times() if times.lane == (2, 0))
    assert main.waiting_us > 9e3
    assert main.longest_gap == (pytest.approx(main.waiting_us, rel=0.05), "head")


def test_copies_are_named_by_what_they_carry() -> None:
    timeline = traced(streams(SPEC, (0, 1, 2)))
    names = {span.name: span for span in timeline.typical.spans}
    assert names["x0 to device 0"].lane in timeline.copy_lanes
    assert names["d1 to device 2"].kind == "copy"
    assert names["image in"].kind == names["logits out"].kind == "host"


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**32),
    devices=st.integers(1, 4),
    lanes=st.integers(1, 3),
    again=st.sampled_from([0.0, 0.4]),
)
def test_what_holds_for_any_call(seed: int, devices: int, lanes: int, again: float) -> None:
    placement = random_placement(SPEC, random.Random(seed), devices, lanes, again)
    timeline = traced(placement, FakeOptions(seed=seed, jitter_us=50.0), calls=2)
    for call in timeline.calls:
        for times in call.lane_times():
            parts = (times.engines_us, times.copies_us, times.waiting_us, times.launching_us)
            assert min(parts) >= 0
            assert sum(parts) + times.done_us == pytest.approx(call.wall_us)
            assert times.launching_us == pytest.approx(0, abs=1e-6)  # the simulator never dawdles
        assert sum(call.critical_split().values()) == pytest.approx(call.wall_us)
        assert call.critical[-1].end_us == call.end_us
        assert not call.sources[call.critical[0].step]
        ends = {span.step: span.end_us for span in call.spans}
        for span in call.spans:
            assert all(ends[step] <= span.start_us + 1e-6 for step in call.sources[span.step])
    before, after = timeline.calls
    assert before.end_us <= after.start_us


def test_sources_are_those_of_lane_and_events() -> None:
    executor = fake_executor(SPEC, streams(SPEC))
    steps = executor.program.steps
    found = {
        steps[index].name: {steps[source].name for source in sources}
        for index, sources in direct_sources(executor.program).items()
        if steps[index].op == "run"
    }
    executor.close()
    assert found["stem0"] == {"image"}
    assert found["stream0"] == {"stem0"}
    assert found["stream1"] == {"stem1"}
    assert found["fusion1"] == {"stream1", "stream0"}
    assert found["head"] == {"stream2", "fusion1"}


def test_an_operation_that_starts_late_was_being_launched() -> None:
    """Every operation starts 1 us behind what it needs, and takes 10."""
    executor = fake_executor(SPEC, PLACEMENTS["streams on one device"](SPEC))
    program = executor.program
    executor.close()
    entries, now = [], {}
    for index, sources in direct_sources(program).items():
        start = max((now[source] for source in sources), default=0.0) + 1.0
        now[index] = start + 10.0
        lane = program.steps[index].lane
        about = {"op": "run", "name": "", "device": lane.device, "stream": f"lane{lane.lane}"}
        entries.append(TimelineEntry(**about, start_us=start, end_us=now[index], simulated=False))
    timeline = read_timeline(entries, program, calls=1)
    call = timeline.typical
    assert not timeline.simulated
    split = call.critical_split()
    assert split["launching_us"] == pytest.approx(len(call.critical) - 1)  # the first is the start
    for times in call.lane_times():
        own = [span for span in call.spans if span.lane == times.lane]
        first = any(not call.sources[span.step] for span in own)  # nothing was launched before it
        assert times.launching_us == pytest.approx(len(own) - first)


def test_too_few_operations_are_refused() -> None:
    executor = fake_executor(SPEC, streams(SPEC))
    run(executor, SPEC, images(SPEC))
    entries, program = executor.timeline(), executor.program
    executor.close()
    with pytest.raises(BackendError, match="got 6 operations, expected 6 for each of 2 calls"):
        read_timeline(entries, program, calls=2)
    with pytest.raises(BackendError, match=r"got 0 operations.*trace=True"):
        read_timeline((), program, calls=1)


class TestTrace:
    def test_it_is_what_chrome_reads(self) -> None:
        timeline = traced(streams(SPEC, (0, 1, 2)))
        events = json.loads(json.dumps(list(trace_events(timeline))))
        spans = [event for event in events if event["ph"] == "X"]
        names = [event for event in events if event["ph"] == "M"]
        assert len(spans) + len(names) == len(events)
        assert len(spans) == sum(len(call.spans) for call in timeline.calls)
        for event in spans:
            assert event["ts"] >= 0
            assert event["dur"] >= 0
            assert isinstance(event["pid"], int)
            assert isinstance(event["tid"], int)
        assert min(event["ts"] for event in spans) == 0
        rows = {(event["pid"], event["tid"]) for event in spans}
        threads = {(e["pid"], e["tid"]): e["args"]["name"] for e in names
                   if e["name"] == "thread_name"}  # fmt: skip
        assert rows == set(threads)
        assert threads[2, 1] == "lane 1, copies"
        devices = {e["args"]["name"] for e in names if e["name"] == "process_name"}
        assert devices == {f"device {i} (simulated)" for i in range(3)}
        assert {event["args"]["call"] for event in spans} == {0, 1, 2}

    def test_operations_of_a_row_do_not_overlap(self) -> None:
        spans = [e for e in trace_events(traced(streams(SPEC, (0, 1)))) if e["ph"] == "X"]
        for row in {(event["pid"], event["tid"]) for event in spans}:
            own = sorted((e["ts"], e["dur"]) for e in spans if (e["pid"], e["tid"]) == row)
            for (start, duration), (following, _) in pairwise(own):
                assert start + duration <= following + 1e-6


SVG = "{http://www.w3.org/2000/svg}"


class TestPicture:
    def draw(self, placement: Placement, **changes) -> ElementTree.Element:
        timeline = replace(traced(placement), **changes)
        return ElementTree.fromstring(draw_timeline(timeline, "a <b> & c", "conditions <x>"))

    def test_every_operation_is_a_bar_inside_of_the_paper(self) -> None:
        timeline = traced(streams(SPEC, (0, 1, 2)))
        root = ElementTree.fromstring(draw_timeline(timeline, "title", ""))
        _, _, width, height = map(float, root.attrib["viewBox"].split())
        bars = [bar for bar in root.iter(f"{SVG}rect") if bar.find(f"{SVG}title") is not None]
        assert len(bars) == len(timeline.typical.spans)
        for bar in bars:
            x, y, wide, high = (float(bar.attrib[k]) for k in ("x", "y", "width", "height"))
            assert x >= 0 and x + wide <= width and y >= 0 and y + high <= height  # noqa: PT018
        critical = [bar for bar in bars if "critical" in bar.attrib["class"].split()]
        assert len(critical) == len(timeline.typical.critical)

    def test_a_simulation_is_called_so_and_a_measurement_has_its_conditions(self) -> None:
        simulated = "".join(self.draw(streams(SPEC)).itertext())
        assert "Simulated devices: times follow from made-up rates. Nothing was" in simulated
        measured = "".join(self.draw(streams(SPEC), simulated=False).itertext())
        assert "Simulated" not in measured
        assert "conditions <x>" in measured

    def test_it_is_one_file_for_light_and_dark_with_a_legend(self) -> None:
        root = self.draw(recompute(SPEC, (0, 1)))
        text = "".join(root.itertext())
        assert "prefers-color-scheme: dark" in text
        for word in ("a <b> & c", "overlap", "engine", "copy to another device", "critical path"):
            assert word in text
        assert not [e for e in root.iter() if any("href" in key for key in e.attrib)]

    @pytest.mark.parametrize(
        ("us", "text"), [(0, "0 us"), (2.5, "2.5 us"), (415.6, "416 us"), (12345, "12.3 ms")]
    )
    def test_times(self, us: float, text: str) -> None:
        assert time_text(us) == text
